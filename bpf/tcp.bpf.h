/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/*
 * TCP: every change of a connection's or listener's state.
 */
#ifndef PORT_REPORTER_TCP_H
#define PORT_REPORTER_TCP_H

#include "accepting.bpf.h"
#include "common.bpf.h"

/* Takes the addresses from the socket as far as it has them; what it no longer
 * has (it forgets its port when it closes) stays as remembered. */
static __always_inline void refresh_tcp(struct memory *memory, struct sock *sk)
{
	struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);
	__u32 *local = (__u32 *)memory->local_ip;
	__u32 *remote = (__u32 *)memory->remote_ip;
	__u16 port;

	if (!tcp)
		return;
	memory->netns = sk->__sk_common.skc_net.net->ns.inum;
	port = bpf_ntohs(tcp->inet_conn.icsk_inet.inet_sport);
	if (port)
		memory->local_port = port;
	port = bpf_ntohs(sk->__sk_common.skc_dport);
	if (port)
		memory->remote_port = port;

	if (sk->__sk_common.skc_family == AF_INET6) {
		const __u32 *ip = sk->__sk_common.skc_v6_daddr.in6_u.u6_addr32;

		remote[0] = ip[0];
		remote[1] = ip[1];
		remote[2] = ip[2];
		remote[3] = ip[3];
		if (!is_mapped(memory->remote_ip)) {
			ip = sk->__sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32;
			memory->family = AF_INET6;
			local[0] = ip[0];
			local[1] = ip[1];
			local[2] = ip[2];
			local[3] = ip[3];
			return;
		}
	}
	/* IPv4, or a v4-mapped peer: the v4 members hold the truth. */
	memory->family = AF_INET;
	local[0] = tcp->inet_conn.icsk_inet.inet_saddr;
	if (!local[0])
		local[0] = sk->__sk_common.skc_rcv_saddr;
	local[1] = local[2] = local[3] = 0;
	remote[0] = sk->__sk_common.skc_daddr;
	remote[1] = remote[2] = remote[3] = 0;
}

/* Did the current task cause this inside a call on the socket? A softirq never
 * holds the socket's owner lock. */
static __always_inline bool in_user_context(struct sock *sk)
{
	if (!sk->sk_lock.owned)
		return false;
	return !(bpf_get_current_task_btf()->flags & PF_KTHREAD);
}

/* What went over a connection. */
static __always_inline void count_bytes(struct tcp_sock *tcp, __u64 *sent, __u64 *received)
{
	__u64 in = tcp->bytes_received;

	/* The counter takes the peer's FIN for a byte. */
	if (in && (tcp->inet_conn.icsk_inet.sk.__sk_common.skc_flags & (1UL << SOCK_DONE)))
		in--;
	*received = in;
	*sent = tcp->bytes_sent - tcp->bytes_retrans;
}

/* Returns false if the record found no room. */
static __always_inline bool submit_tcp(const struct memory *memory, struct sock *sk,
				       __u8 action, __u8 old_state, __u8 state)
{
	struct socket_record record;
	struct tcp_sock *tcp;

	if (is_quiet(memory->owner.pid))
		return true;
	fill_record(&record, memory, action, IPPROTO_TCP);
	record.old_state = old_state;
	record.state = state;
	if (action == ACTION_CLOSE) {
		record.error = sk->sk_err;
		tcp = bpf_skc_to_tcp_sock(sk);
		if (tcp && old_state != TCP_LISTEN) {
			count_bytes(tcp, &record.bytes_sent, &record.bytes_received);
			record.flags = FLAG_COUNTED;
		}
	}
	return put(&record, sizeof(record));
}

/*
 * Connections over IPv4 have small records: one that opens the port, with the
 * owner, and brief ones of what happens to it then, which fill one slot of the
 * ring each, and the last one two. A good part of what a record costs is that its
 * cache lines move to the reader's core and back.
 */

static __always_inline bool can_be_brief(struct sock *sk, const struct memory *memory)
{
	if (memory && (!memory->reported || memory->owed || is_quiet(memory->owner.pid)))
		return false;
	return sk->__sk_common.skc_family == AF_INET;
}

static __always_inline void fill_brief(struct brief_record *record, struct sock *sk,
				       __u64 cookie, __u8 old_state, __u8 state)
{
	fill_header(&record->header, RECORD_BRIEF);
	record->sequence = count(COUNTER_SOCKETS);
	record->cookie = cookie;
	record->netns = sk->__sk_common.skc_net.net->ns.inum;
	record->local_port = sk->__sk_common.skc_num;
	record->remote_port = bpf_ntohs(sk->__sk_common.skc_dport);
	record->old_state = old_state;
	record->state = state;
	record->error = 0;
	record->flags = 0;
	record->padding[0] = record->padding[1] = record->padding[2] = 0;
	record->local_ip = sk->__sk_common.skc_rcv_saddr;
	record->remote_ip = sk->__sk_common.skc_daddr;
}

static __always_inline void submit_brief(struct sock *sk, __u64 cookie, __u8 old_state,
					 __u8 state)
{
	struct brief_record record;
	struct tcp_sock *tcp;

	fill_brief(&record, sk, cookie, old_state, state);
	if (state != TCP_CLOSE) {
		put(&record, BRIEF_SIZE);
		return;
	}
	record.error = sk->sk_err;
	record.bytes_sent = record.bytes_received = 0;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (tcp) {
		/* The socket has just given its port up, but not forgotten it. */
		record.local_port = bpf_ntohs(tcp->inet_conn.icsk_inet.inet_sport);
		if (old_state != TCP_LISTEN) {
			count_bytes(tcp, &record.bytes_sent, &record.bytes_received);
			record.flags = FLAG_COUNTED;
		}
	}
	put(&record, sizeof(record));
}

/* Who opens it is the current process, or not known. Returns false if the record
 * found no room. */
static __always_inline bool submit_opening(struct sock *sk, __u64 cookie, __u8 old_state,
					   __u8 state, bool is_current)
{
	struct opening_record record;

	fill_header(&record.header, RECORD_OPENING);
	record.sequence = count(COUNTER_SOCKETS);
	record.cookie = cookie;
	record.netns = sk->__sk_common.skc_net.net->ns.inum;
	record.local_port = sk->__sk_common.skc_num;
	record.remote_port = bpf_ntohs(sk->__sk_common.skc_dport);
	record.old_state = old_state;
	record.state = state;
	record.zero[0] = record.zero[1] = record.zero[2] = 0;
	record.padding[0] = record.padding[1] = 0;
	record.local_ip = sk->__sk_common.skc_rcv_saddr;
	record.remote_ip = sk->__sk_common.skc_daddr;
	if (is_current) {
		record.attribution = OWNER_CREATOR;
		fill_current(&record.owner);
	} else {
		record.attribution = OWNER_UNKNOWN;
		__builtin_memset(&record.owner, 0, sizeof(record.owner));
	}
	return put(&record, sizeof(record));
}

/* A port comes into use. */
static __always_inline void begin_tcp(struct memory *memory, struct sock *sk, __u8 state)
{
	memory->since = bpf_ktime_get_boot_ns();
	memory->reported = 1;
	refresh_tcp(memory, sk);
	/* Before a socket has chosen its port, the other place where it keeps it
	 * still has that of its last use. */
	if (state == TCP_LISTEN || state == TCP_SYN_SENT)
		memory->local_port = sk->__sk_common.skc_num;
}

/* The record that opens the port. If it finds no room, the next ones of the
 * socket tell all that it would have told. */
static __always_inline void open_tcp(struct memory *memory, struct sock *sk, __u8 action,
				     __u8 old_state, __u8 state)
{
	begin_tcp(memory, sk, state);
	memory->owed = !submit_tcp(memory, sk, action, old_state, state);
}

/*
 * A connection needs no memory of its own: its first record tells all, and
 * whatever happens to it later is told by brief records. Making and freeing a
 * memory would cost more than all its records. Only if the first one finds no
 * room there is something to be remembered.
 */
static __always_inline void open_unremembered(struct sock *sk, __u64 cookie, bool connects)
{
	__u8 old_state = connects ? TCP_CLOSE : TCP_SYN_RECV;
	__u8 state = connects ? TCP_SYN_SENT : TCP_ESTABLISHED;
	bool is_small = sk->__sk_common.skc_family == AF_INET;
	struct memory first, *memory;

	if (is_small && submit_opening(sk, cookie, old_state, state, connects))
		return;
	__builtin_memset(&first, 0, sizeof(first));
	first.cookie = cookie;
	first.connecting = connects;
	if (connects)
		own(&first);
	if (is_small) {
		begin_tcp(&first, sk, state);
		first.owed = 1;
	} else {
		open_tcp(&first, sk, connects ? ACTION_CONNECT : ACTION_ACCEPT, old_state, state);
	}
	if (!first.owed)
		return;
	memory = bpf_sk_storage_get(&memories, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (memory)
		*memory = first;
}

static __always_inline void connect_tcp(struct memory *memory, struct sock *sk, __u64 cookie)
{
	if (!memory) {
		open_unremembered(sk, cookie, true);
		return;
	}
	__builtin_memset(memory->remote_ip, 0, 16);
	memory->remote_port = 0;
	memory->local_port = 0;
	memory->connecting = 1;
	own(memory);
	open_tcp(memory, sk, ACTION_CONNECT, TCP_CLOSE, TCP_SYN_SENT);
}

/* Who uses it before it is established (TCP Fast Open) was remembered. Others are
 * looked out for only now that the user side knows of the connection. */
static __always_inline void accept_tcp(struct memory *memory, struct sock *sk, __u64 cookie)
{
	bool is_used = memory && memory->attribution == OWNER_CREATOR;

	if (memory) {
		if (!is_used)
			own_if_quiet(memory, sk);
		open_tcp(memory, sk, ACTION_ACCEPT, TCP_SYN_RECV, TCP_ESTABLISHED);
	} else {
		open_unremembered(sk, cookie, false);
	}
	if (!is_used)
		expect_use(cookie);
}

/*
 * Most changes by far: the user side knows the connection, and nothing is
 * remembered of it. Returns false, and has done nothing, if it is another case.
 */
static __always_inline bool change_briefly(struct sock *sk, int old_state, int state)
{
	__u64 cookie = sk->__sk_common.skc_cookie.counter;

	if (sk->sk_protocol != IPPROTO_TCP || !cookie || !setting(SETTING_LEAN))
		return false;
	if (old_state == TCP_SYN_RECV || state == TCP_SYN_SENT || state == TCP_SYN_RECV ||
	    state == TCP_LISTEN || sk->sk_bpf_storage || !can_be_brief(sk, 0))
		return false;
	if (in_user_context(sk) && find_unused(cookie))
		return false;
	submit_brief(sk, cookie, old_state, state);
	return true;
}

/* Apart from the program, so that what runs for most changes is short. */
static __noinline int change_state(struct sock *sk, int old_state, int state)
{
	struct memory *memory, spare;
	bool is_new, keeps, shows_user;
	__u64 cookie;
	__u8 action;

	if (sk->sk_protocol != IPPROTO_TCP)
		return 0;
	/* A child of a listener: it is reported once it is established. */
	if (state == TCP_SYN_RECV && old_state != TCP_SYN_SENT)
		return 0;
	cookie = sk->__sk_common.skc_cookie.counter;
	is_new = !cookie;
	if (is_new)
		cookie = bpf_get_socket_cookie(sk);
	/* Until the user side has its snapshot, it knows none of the sockets;
	 * a simultaneous open must not be taken for an accept. */
	keeps = !setting(SETTING_LEAN) || state == TCP_LISTEN || state == TCP_SYN_RECV;
	memory = recall(sk, cookie, keeps ? BPF_SK_STORAGE_GET_F_CREATE : 0);

	if (old_state == TCP_CLOSE && state == TCP_SYN_SENT) {
		connect_tcp(memory, sk, cookie);
		return 0;
	}
	if (state == TCP_ESTABLISHED && old_state == TCP_SYN_RECV &&
	    !(memory && memory->connecting)) {
		accept_tcp(memory, sk, cookie);
		return 0;
	}
	/* Where nobody was seen to accept, the process that closes is the user. */
	shows_user = in_user_context(sk);
	if (!memory) {
		if (!(shows_user && is_first_use(cookie)) && !is_new &&
		    old_state != TCP_SYN_RECV && can_be_brief(sk, 0)) {
			submit_brief(sk, cookie, old_state, state);
			return 0;
		}
		/* Nothing is remembered: the record says what the socket knows. */
		__builtin_memset(&spare, 0, sizeof(spare));
		spare.cookie = cookie;
		spare.reported = !is_new;
		memory = &spare;
	}
	if (state == TCP_LISTEN) {
		__builtin_memset(memory->remote_ip, 0, 16);
		memory->remote_port = 0;
		memory->local_port = 0;
		own(memory);
		note_quiet_listener(memory, sk);
		/* Without a bind before, the port is only chosen after this; the
		 * user side looks it up. */
		open_tcp(memory, sk, ACTION_LISTEN, old_state, state);
		return 0;
	}
	if (state == TCP_SYN_RECV)
		memory->connecting = 1;
	if (shows_user) {
		if (memory->attribution == OWNER_UNKNOWN || is_first_use(cookie)) {
			own(memory);
			memory->owed = 1;
		} else if (renew_user(memory)) {
			memory->owed = 1;
		}
	}
	/* A child that was never established was never in use. */
	if (!memory->reported && old_state == TCP_SYN_RECV)
		return 0;
	if (can_be_brief(sk, memory)) {
		submit_brief(sk, cookie, old_state, state);
		return 0;
	}
	/* From then on the addresses stay. */
	if (state == TCP_ESTABLISHED || !memory->netns || !memory->local_port)
		refresh_tcp(memory, sk);
	action = state == TCP_ESTABLISHED ? ACTION_ESTABLISHED
	       : state == TCP_CLOSE ? ACTION_CLOSE : ACTION_STATE;
	if (submit_tcp(memory, sk, action, old_state, state))
		memory->owed = 0;
	if (state == TCP_ESTABLISHED || state == TCP_CLOSE)
		memory->connecting = 0;
	return 0;
}

/*
 * A softirq may interrupt tcp_state in a system call and change the state of
 * another socket on the same CPU; the kernel does not enter a program twice, so
 * that change would be missed. tcp_state_nested runs after tcp_state for each
 * change, and acts for one that tcp_state has not seen.
 *
 * A change in a system call, which holds the socket's lock as its owner, is
 * never missed, for nothing can be interrupted by it. In a softirq tcp_state
 * leaves word of the change that it has seen; softirqs do not nest, so there is
 * one at most. Word that nobody took (tcp_state_nested was interrupted) is
 * forgotten with the next change in a system call, before it could be mistaken
 * for one of a later socket at the same address.
 */
struct seen {
	__u64 sk;
	__u32 state;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct seen);
} seen_change SEC(".maps");

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(tcp_state, struct sock *sk, const int old_state, const int state)
{
	__u32 zero = 0;
	struct seen *seen = bpf_map_lookup_elem(&seen_change, &zero);

	if (!seen)
		return 0;
	if (sk->sk_lock.owned) {
		*(volatile __u64 *)&seen->sk = 0;
	} else {
		seen->state = state;
		*(volatile __u64 *)&seen->sk = (__u64)sk;
	}
	mark_fired(HOOK_TCP_STATE);
	if (!change_briefly(sk, old_state, state))
		change_state(sk, old_state, state);
	return 0;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(tcp_state_nested, struct sock *sk, const int old_state, const int state)
{
	__u32 zero = 0;
	struct seen *seen;

	mark_fired(HOOK_TCP_NESTED);
	if (sk->sk_lock.owned)
		return 0;
	seen = bpf_map_lookup_elem(&seen_change, &zero);
	if (!seen)
		return 0;
	if (seen->sk == (__u64)sk && seen->state == state) {
		*(volatile __u64 *)&seen->sk = 0;
		return 0;
	}
	change_state(sk, old_state, state);
	count(COUNTER_NESTED);
	return 0;
}

#endif
