/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/*
 * UDP. There is no tracepoint for its states; the programs of the cgroup at
 * the root run in the caller's own context.
 */
#ifndef PORT_REPORTER_UDP_H
#define PORT_REPORTER_UDP_H

#include "common.bpf.h"
#include "other.bpf.h"

static __always_inline void release_other(struct bpf_sock *ctx, __u8 protocol);

static __always_inline void report_udp(struct memory *memory, __u8 action)
{
	struct socket_record record;

	if (is_quiet(memory->owner.pid))
		return;
	fill_record(&record, memory, action, memory->protocol);
	put(&record, sizeof(record));
}

/* Through the map the pointer of a program's context becomes a number, from
 * which everything of the socket can be read. */
static __always_inline struct sock *kernel_socket(struct memory *memory, void *sk)
{
	memory->sk = (__u64)sk;
	return (struct sock *)*(volatile __u64 *)&memory->sk;
}

static __always_inline void refresh_udp(struct memory *memory, struct sock *sk)
{
	memory->netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	memory->family = BPF_CORE_READ(sk, __sk_common.skc_family);
	memory->local_port = BPF_CORE_READ(sk, __sk_common.skc_num);
	memory->remote_port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
	if (memory->family == AF_INET) {
		*(__be32 *)memory->local_ip = BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr);
		*(__be32 *)memory->remote_ip = BPF_CORE_READ(sk, __sk_common.skc_daddr);
	} else {
		BPF_CORE_READ_INTO(&memory->local_ip, sk, __sk_common.skc_v6_rcv_saddr);
		BPF_CORE_READ_INTO(&memory->remote_ip, sk, __sk_common.skc_v6_daddr);
	}
}

/* What was seen cannot be told: it takes a number all the same, so that it is
 * known to be missing. Of a socket without a memory it cannot be told whether
 * it has taken its port with this datagram or with one before: rather one
 * loss too many. */
static __always_inline void lose_udp(void)
{
	if (!is_quiet(bpf_get_current_task_btf()->tgid))
		count(COUNTER_SOCKETS);
}

/* Where the pointer to a socket without a memory becomes a number. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} pointers SEC(".maps");

/* A socket ends of which nothing is remembered: there was no room for it, or it
 * is older than these programs and the snapshot has not come by. Who closes the
 * last descriptor is found to hold it; who made it is not known. */
static __always_inline void end_unremembered(struct bpf_sock *ctx, __u8 protocol)
{
	struct memory memory = {};
	__u32 zero = 0;
	__u64 *pointer = bpf_map_lookup_elem(&pointers, &zero);

	if (!pointer)
		return;
	*(volatile __u64 *)pointer = (__u64)ctx;
	refresh_udp(&memory, (struct sock *)*(volatile __u64 *)pointer);
	if (is_udp(protocol) && !memory.local_port)
		return;
	memory.protocol = protocol;
	memory.cookie = bpf_get_socket_cookie(ctx);
	fill_current(&memory.owner);
	memory.attribution = OWNER_SNAPSHOT;
	report_udp(&memory, ACTION_CLOSE);
}

/* Remembers the socket and, as soon as it has a port, reports it. It takes that
 * port now, before this or after. */
static __always_inline void bind_udp(void *ctx, struct bpf_sock *sk, bool takes_port)
{
	struct memory *memory;

	if (!sk || !is_udp(sk->protocol))
		return;
	memory = bpf_sk_storage_get(&memories, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!memory) {
		if (takes_port)
			lose_udp();
		return;
	}
	if (memory->reported) {
		if (sk->src_port == memory->local_port)
			return;
		/* connect(AF_UNSPEC) gave the port up; what follows is another. */
		report_udp(memory, ACTION_CLOSE);
		memory->reported = 0;
	}
	memory->cookie = bpf_get_socket_cookie(ctx);
	memory->protocol = sk->protocol;
	own(memory);
	memory->since = bpf_ktime_get_boot_ns();
	refresh_udp(memory, kernel_socket(memory, sk));
	if (!memory->local_port)
		return;
	memory->reported = 1;
	report_udp(memory, ACTION_BIND);
}

SEC("cgroup/post_bind4")
int udp_bind4(struct bpf_sock *ctx)
{
	mark_fired(HOOK_UDP_BIND4);
	bind_udp(ctx, ctx, true);
	return 1;
}

SEC("cgroup/post_bind6")
int udp_bind6(struct bpf_sock *ctx)
{
	mark_fired(HOOK_UDP_BIND6);
	bind_udp(ctx, ctx, true);
	return 1;
}

SEC("cgroup/sendmsg4")
int udp_send4(struct bpf_sock_addr *ctx)
{
	mark_fired(HOOK_UDP_SEND4);
	bind_udp(ctx, ctx->sk, true);
	return 1;
}

SEC("cgroup/sendmsg6")
int udp_send6(struct bpf_sock_addr *ctx)
{
	mark_fired(HOOK_UDP_SEND6);
	bind_udp(ctx, ctx->sk, true);
	return 1;
}

/* connect() chooses a port only after this, if the socket has none yet; then
 * its return reports it, or the first send, or the close. */
static __always_inline void connect_udp(struct bpf_sock_addr *ctx)
{
	if (is_udp(ctx->protocol))
		bind_udp(ctx, ctx->sk, ctx->sk && !ctx->sk->src_port);
}

SEC("cgroup/connect4")
int udp_connect4(struct bpf_sock_addr *ctx)
{
	mark_fired(HOOK_UDP_CONNECT4);
	connect_udp(ctx);
	return 1;
}

SEC("cgroup/connect6")
int udp_connect6(struct bpf_sock_addr *ctx)
{
	mark_fired(HOOK_UDP_CONNECT6);
	connect_udp(ctx);
	return 1;
}

/* A socket that was seen before it had a port may have one now. */
static __always_inline void port_udp(struct memory *memory, struct sock *sk)
{
	if (memory->reported)
		return;
	refresh_udp(memory, sk);
	if (!memory->local_port)
		return;
	memory->reported = 1;
	report_udp(memory, ACTION_BIND);
}

/* The end of connect(), where functions can be traced. Even if it failed, the
 * port that it took is kept. */
static __always_inline void connected_udp(struct sock *sk)
{
	struct memory *memory;

	if (!is_udp(sk->sk_protocol))
		return;
	memory = bpf_sk_storage_get(&memories, sk, 0, 0);
	if (memory && memory->cookie && memory->cookie == sk->__sk_common.skc_cookie.counter)
		port_udp(memory, sk);
}

SEC("fexit/__ip4_datagram_connect")
int BPF_PROG(connected_udp4, struct sock *sk)
{
	mark_fired(HOOK_UDP_CONNECTED4);
	connected_udp(sk);
	return 0;
}

SEC("fexit/__ip6_datagram_connect")
int BPF_PROG(connected_udp6, struct sock *sk)
{
	mark_fired(HOOK_UDP_CONNECTED6);
	connected_udp(sk);
	return 0;
}

/* The last descriptor of a socket is closed. */
SEC("cgroup/sock_release")
int socket_release(struct bpf_sock *ctx)
{
	struct memory *memory;
	__u16 port;
	__u8 other;

	mark_fired(HOOK_SOCKET_RELEASE);
	if (ctx->type == SOCK_STREAM)
		return 1;
	other = other_protocol(ctx->type, ctx->protocol);
	if (other) {
		release_other(ctx, other);
		return 1;
	}
	if (!is_udp(ctx->protocol))
		return 1;
	memory = bpf_sk_storage_get(&memories, ctx, 0, 0);
	if (!memory)
		end_unremembered(ctx, ctx->protocol);
	if (!memory || !memory->cookie)
		return 1;
	port = memory->local_port;
	renew_user(memory);
	refresh_udp(memory, kernel_socket(memory, ctx));
	/* connect(AF_UNSPEC) gave the port up before. */
	if (!memory->local_port && memory->reported)
		memory->local_port = port;
	if (!memory->local_port)
		return 1;
	/* It was connected and never sent. */
	if (!memory->reported)
		report_udp(memory, ACTION_BIND);
	report_udp(memory, ACTION_CLOSE);
	memory->reported = 0;
	memory->cookie = 0;
	return 1;
}

#endif
