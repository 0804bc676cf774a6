/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/*
 * Who accepted a connection. accept() itself can only be seen where functions
 * can be traced. What can be seen everywhere is that it asks for the peer's
 * address, and the first send. Until then the owner is the listener's.
 */
#ifndef PORT_REPORTER_OWNER_H
#define PORT_REPORTER_OWNER_H

#include "common.bpf.h"
#include "udp.bpf.h"

/* The current process has the connection, if nobody was known to use it. */
static __always_inline void take_over(struct memory *memory)
{
	struct owner_record *record;

	if (memory->attribution != OWNER_INHERITED && !is_passed(memory)) {
		memory->unused = 0;
		return;
	}
	own(memory);
	if (is_quiet(memory->owner.pid))
		return;
	record = bpf_ringbuf_reserve(&ring, sizeof(*record), 0);
	if (!record) {
		count(COUNTER_PROCESSES_LOST);
		return;
	}
	fill_header(&record->header, RECORD_OWNER);
	record->cookie = memory->cookie;
	record->owner = memory->owner;
	bpf_ringbuf_submit(record, 0);
}

/* The end of accept(), in the process that called it. */
static __always_inline void accepted(struct sock *sk)
{
	struct memory *memory;

	mark_fired(HOOK_TCP_ACCEPTED);
	if (!sk || sk->sk_protocol != IPPROTO_TCP)
		return;
	/* With TCP Fast Open it may not be established, and a clone still. */
	memory = recall(sk, bpf_get_socket_cookie(sk), 0);
	if (!memory || memory->attribution != OWNER_INHERITED)
		return;
	take_over(memory);
	memory->unused = 1;
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
	struct memory *memory;

	if (!sk || sk->protocol != IPPROTO_TCP)
		return;
	memory = bpf_sk_storage_get(&memories, sk, 0, 0);
	if (memory && memory->cookie == bpf_get_socket_cookie(ctx))
		take_over(memory);
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

	mark_fired(HOOK_SEND);
	memory = bpf_sk_storage_get(&memories, sk, 0, 0);
	if (!memory || memory->cookie != sk->__sk_common.skc_cookie.counter)
		return 0;
	if (sk->sk_protocol == IPPROTO_TCP)
		take_over(memory);
	else if (is_udp(sk->sk_protocol))
		port_udp(memory, sk);
	return 0;
}

#endif
