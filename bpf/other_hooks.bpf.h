/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/*
 * The programs that see sockets without ports made; see other.bpf.h.
 */
#ifndef PORT_REPORTER_OTHER_HOOKS_H
#define PORT_REPORTER_OTHER_HOOKS_H

#include "other.bpf.h"
#include "udp.bpf.h"

#define CAP_NET_RAW 13

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct pt_regs___x86 {
	unsigned long di;
	unsigned long si;
	unsigned long dx;
	unsigned long orig_ax;
};

struct pt_regs___arm64 {
	__u64 regs[31];
	__s32 syscallno;
};

#pragma clang attribute pop

/* The end of socket() for IPv4 and IPv6. Nearly all are TCP. */
SEC("cgroup/sock_create")
int socket_create(struct bpf_sock *ctx)
{
	struct memory *memory;
	__u8 protocol;

	if (ctx->type == SOCK_STREAM)
		return 1;
	mark_fired(HOOK_SOCKET_CREATE);
	protocol = other_protocol(ctx->type, ctx->protocol);
	if (!protocol)
		return 1;
	memory = bpf_sk_storage_get(&memories, ctx, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!memory) {
		lose_udp();
		return 1;
	}
	memory->cookie = bpf_get_socket_cookie(ctx);
	memory->protocol = protocol;
	own(memory);
	memory->since = bpf_ktime_get_boot_ns();
	refresh_udp(memory, kernel_socket(memory, ctx));
	memory->reported = 1;
	report_udp(memory, ACTION_BIND);
	return 1;
}

/* The last descriptor of a raw or ping socket is closed. */
static __always_inline void release_other(struct bpf_sock *ctx, __u8 protocol)
{
	struct memory *memory = bpf_sk_storage_get(&memories, ctx, 0, 0);

	if (!memory)
		end_unremembered(ctx, protocol);
	if (!memory || !memory->reported)
		return;
	renew_user(memory);
	refresh_udp(memory, kernel_socket(memory, ctx));
	report_udp(memory, ACTION_CLOSE);
	memory->reported = 0;
	memory->cookie = 0;
}

SEC("fexit/packet_create")
int BPF_PROG(packet_made, struct net *net, struct socket *socket, int protocol, int kern,
	     int result)
{
	struct memory *memory;
	struct sock *sk;

	mark_fired(HOOK_PACKET_MADE);
	if (result || kern)
		return 0;
	sk = socket->sk;
	if (!sk)
		return 0;
	memory = bpf_sk_storage_get(&memories, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!memory) {
		lose_udp();
		return 0;
	}
	memory->cookie = bpf_get_socket_cookie(sk);
	memory->protocol = PROTOCOL_PACKET;
	own(memory);
	memory->since = bpf_ktime_get_boot_ns();
	memory->netns = net->ns.inum;
	memory->family = AF_PACKET;
	memory->local_port = packet_number(sk);
	memory->reported = 1;
	report_udp(memory, ACTION_BIND);
	return 0;
}

SEC("fentry/packet_release")
int BPF_PROG(packet_released, struct socket *socket)
{
	struct memory *memory;
	struct sock *sk;

	mark_fired(HOOK_PACKET_RELEASED);
	sk = socket->sk;
	if (!sk)
		return 0;
	memory = bpf_sk_storage_get(&memories, sk, 0, 0);
	if (!memory || !memory->reported)
		return 0;
	renew_user(memory);
	memory->local_port = packet_number(sk);
	report_udp(memory, ACTION_CLOSE);
	memory->reported = 0;
	memory->cookie = 0;
	return 0;
}

/* Is this the system call socket(AF_PACKET, ...), and for which EtherType? A
 * call of another kind (of a 32-bit program, by io_uring) is not recognised. */
static __always_inline bool is_packet_call(struct task_struct *task, __u16 *number)
{
	struct pt_regs___x86 *x86 = (void *)bpf_task_pt_regs(task);
	struct pt_regs___arm64 *arm64 = (void *)x86;
	__u64 call, family, type, protocol;

	if (bpf_core_field_exists(x86->orig_ax)) {
		call = BPF_CORE_READ(x86, orig_ax) == 41;
		family = BPF_CORE_READ(x86, di);
		type = BPF_CORE_READ(x86, si);
		protocol = BPF_CORE_READ(x86, dx);
	} else if (bpf_core_field_exists(arm64->syscallno)) {
		call = BPF_CORE_READ(arm64, syscallno) == 198;
		family = BPF_CORE_READ(arm64, regs[0]);
		type = BPF_CORE_READ(arm64, regs[1]);
		protocol = BPF_CORE_READ(arm64, regs[2]);
	} else {
		return false;
	}
	type &= 0xf;
	*number = bpf_ntohs((__u16)protocol);
	return call && (__u32)family == AF_PACKET &&
	       (type == SOCK_DGRAM || type == SOCK_RAW || type == SOCK_PACKET);
}

/* A process is asked whether it may do something; here, whether it may make a
 * packet socket, and it may. */
SEC("tp_btf/cap_capable")
int BPF_PROG(packet_asked, void *cred, void *target, void *capable, int capability, int result)
{
	struct memory memory = {};
	struct task_struct *task;

	if (capability != CAP_NET_RAW || result)
		return 0;
	mark_fired(HOOK_PACKET_ASKED);
	task = bpf_get_current_task_btf();
	if (!is_packet_call(task, &memory.local_port))
		return 0;
	memory.protocol = PROTOCOL_PACKET;
	memory.family = AF_PACKET;
	memory.netns = BPF_CORE_READ(task, nsproxy, net_ns, ns.inum);
	memory.since = bpf_ktime_get_boot_ns();
	own(&memory);
	report_udp(&memory, ACTION_BIND);
	return 0;
}

#endif
