/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/*
 * Sockets that are neither TCP nor UDP, by which a process makes or sees
 * packets by itself: raw, ping and packet sockets. They have no port that
 * could be taken; what is recorded is that one is made, by whom, and its end.
 *
 * Raw and ping sockets are those of the families IPv4 and IPv6, for which the
 * cgroup at the root has a place. For packet sockets it has none. Where
 * functions can be traced, packet_create and packet_release tell all. Else
 * what shows is that the kernel asks whether the process may make one, in the
 * system call socket(AF_PACKET, ...): the socket has no number yet, which the
 * user side looks up.
 *
 * This header is included by udp.bpf.h, and followed by other_hooks.bpf.h.
 */
#ifndef PORT_REPORTER_OTHER_H
#define PORT_REPORTER_OTHER_H

#include "common.bpf.h"

#define AF_PACKET 17
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define SOCK_RAW 3
#define SOCK_PACKET 10
#define IPPROTO_ICMP 1
#define IPPROTO_ICMPV6 58
#define IPPROTO_UDPLITE 136

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct sock___other {
	__u16 sk_type;
};

struct packet_sock___other {
	__be16 num;
};

#pragma clang attribute pop

/* UDP-Lite is UDP in all but its number and its ports. */
static __always_inline bool is_udp(__u32 protocol)
{
	return protocol == IPPROTO_UDP || protocol == IPPROTO_UDPLITE;
}

/* What a record calls a socket of IPv4 or IPv6 without ports; 0: it has some,
 * or is not recorded. */
static __always_inline __u8 other_protocol(__u32 type, __u32 protocol)
{
	if (type == SOCK_RAW)
		return PROTOCOL_RAW;
	if (type == SOCK_DGRAM && (protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6))
		return PROTOCOL_PING;
	return 0;
}

/* The number of a packet socket's EtherType. */
static __always_inline __u16 packet_number(struct sock *sk)
{
	struct packet_sock___other *packet = (void *)sk;

	if (!bpf_core_field_exists(packet->num))
		return 0;
	return bpf_ntohs(BPF_CORE_READ(packet, num));
}

/* The same for a socket that is there, with the number that stands for its
 * port. */
static __always_inline __u8 other_socket(struct sock *sk, __u8 family, __u16 *number)
{
	struct sock___other *other = (void *)sk;
	__u8 protocol;

	if (family == AF_PACKET) {
		*number = packet_number(sk);
		return PROTOCOL_PACKET;
	}
	protocol = other_protocol(BPF_CORE_READ(other, sk_type), BPF_CORE_READ(sk, sk_protocol));
	if (protocol)
		*number = BPF_CORE_READ(sk, __sk_common.skc_num);
	return protocol;
}

#endif
