/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/*
 * Who accepted a connection. accept() itself can only be seen where functions
 * can be traced. What can be seen everywhere is that it asks for the peer's
 * address, and the first send. Until then the user side takes the connection for
 * the listener's.
 */
#ifndef PORT_REPORTER_OWNER_H
#define PORT_REPORTER_OWNER_H

#include "accepting.bpf.h"
#include "common.bpf.h"
#include "udp.bpf.h"

/* The user side is told that the current process has the connection. */
static __always_inline void report_owner(__u64 cookie)
{
	struct owner_record record;

	if (is_quiet(bpf_get_current_task_btf()->tgid))
		return;
	fill_header(&record.header, RECORD_OWNER);
	record.cookie = cookie;
	fill_current(&record.owner);
	if (!put(&record, sizeof(record)))
		count(COUNTER_PROCESSES_LOST);
}

/* With TCP Fast Open a connection may be used before it is established. Then its
 * first record will tell by whom. */
static __always_inline void use_early(void *sk, __u64 cookie)
{
	struct memory *memory = bpf_sk_storage_get(&memories, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);

	if (!memory || memory->cookie)
		return;
	memory->cookie = cookie;
	own(memory);
}

/* The current process uses the connection, or what may become one. */
static __always_inline void use(void *sk, __u64 cookie, __u32 state)
{
	if (state == TCP_SYN_RECV)
		use_early(sk, cookie);
	else if (is_first_use(cookie))
		report_owner(cookie);
}

/* The end of accept(), in the process that called it. */
static __always_inline void accepted(struct sock *sk)
{
	struct unused *unused;
	__u64 cookie;

	mark_fired(HOOK_TCP_ACCEPTED);
	if (!sk || sk->sk_protocol != IPPROTO_TCP)
		return;
	cookie = bpf_get_socket_cookie(sk);
	unused = find_unused(cookie);
	if (unused) {
		unused->acceptor = bpf_get_current_task_btf()->tgid;
		report_owner(cookie);
	} else if (sk->__sk_common.skc_state == TCP_SYN_RECV) {
		use_early(sk, cookie);
	}
}

/*
 * The socket is what the function returns, which stands after its arguments:
 * two since Linux 6.10. Each program is refused where the other one fits, for
 * in its place there is no socket.
 */
SEC("fexit/inet_csk_accept")
int BPF_PROG(tcp_accepted, struct sock *listener, void *argument, struct sock *sk)
{
	accepted(sk);
	return 0;
}

SEC("fexit/inet_csk_accept")
int BPF_PROG(tcp_accepted_by_four, struct sock *listener, int flags, int *error, bool kern,
	     struct sock *sk)
{
	accepted(sk);
	return 0;
}

static __always_inline void ask_peer(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	if (sk && sk->protocol == IPPROTO_TCP)
		use(sk, bpf_get_socket_cookie(ctx), sk->state);
}

SEC("cgroup/getpeername4")
int tcp_accept4(struct bpf_sock_addr *ctx)
{
	mark_fired(HOOK_TCP_ACCEPT4);
	ask_peer(ctx);
	return 1;
}

SEC("cgroup/getpeername6")
int tcp_accept6(struct bpf_sock_addr *ctx)
{
	mark_fired(HOOK_TCP_ACCEPT6);
	ask_peer(ctx);
	return 1;
}

/* Something was sent: the sender uses the socket, and it has a port now. */
SEC("tp_btf/sock_send_length")
int BPF_PROG(socket_sent, struct sock *sk, int result, int flags)
{
	struct memory *memory;
	__u64 cookie;

	mark_fired(HOOK_SEND);
	cookie = sk->__sk_common.skc_cookie.counter;
	if (sk->sk_protocol == IPPROTO_TCP) {
		if (cookie)
			use(sk, cookie, sk->__sk_common.skc_state);
		return 0;
	}
	if (!is_udp(sk->sk_protocol))
		return 0;
	memory = bpf_sk_storage_get(&memories, sk, 0, 0);
	if (memory && memory->cookie == cookie)
		port_udp(memory, sk);
	return 0;
}

#endif
