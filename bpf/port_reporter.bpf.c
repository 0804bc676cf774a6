// SPDX-License-Identifier: (MIT OR GPL-2.0-only)
/*
 * The kernel side of the recorder: what happens to every TCP and UDP socket of
 * the machine, in all network namespaces, and which process did it.
 *
 * The owner of a socket is taken where a process makes the call (listen,
 * connect, bind, send, accept) and kept in the socket's own storage; most
 * changes of a TCP state happen later in a softirq, where "current" is a
 * stranger. The storage is cloned with the listener, so that a connection
 * knows its listener's owner before anybody has accepted it.
 *
 * Each socket record takes the next number of its CPU before it asks for room
 * in the ring; a record that finds no room leaves a hole, by which the user
 * side proves the loss and dates it.
 *
 * Nothing here decides by kernel version: each program is tried on its own,
 * and "fired" shows which of them have run.
 */
#include <stdbool.h>

#include "kernel.h"
#include "records.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual MIT/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20);
} ring SEC(".maps");

/* What is kept with each socket. */
struct memory {
	__u64 cookie;		/* whose memory: a clone still has the listener's */
	__u64 sk;		/* UDP: the socket's address, to be read as a number */
	struct process_key owner;
	__u64 since;
	__u32 netns;
	__u16 local_port;
	__u16 remote_port;
	__u8 family;
	__u8 attribution;
	__u8 reported;		/* the record that opens the port was made */
	__u8 connecting;	/* it connects: SYN_RECEIVED is a simultaneous open */
	__u8 owed;		/* the next record has to tell all, and must not be brief */
	__u8 padding[3];	/* the addresses are read as words */
	__u8 local_ip[16];
	__u8 remote_ip[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct memory);
} memories SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, HOOKS);
	__type(key, __u32);
	__type(value, __u32);
} fired SEC(".maps");

/* enum setting */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SETTINGS);
	__type(key, __u32);
	__type(value, __u32);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct exec_record);
} exec_scratch SEC(".maps");

static __always_inline void mark_fired(__u32 hook)
{
	__u32 *seen = bpf_map_lookup_elem(&fired, &hook);

	if (seen && !*seen)
		*seen = 1;
}

static __always_inline __u64 count(__u32 counter)
{
	__u64 *value = bpf_map_lookup_elem(&counters, &counter);

	return value ? __sync_fetch_and_add(value, 1) : 0;
}

static __always_inline __u32 setting(__u32 key)
{
	__u32 *value = bpf_map_lookup_elem(&settings, &key);

	return value ? *value : 0;
}

static __always_inline bool is_quiet(__u32 pid)
{
	__u32 who = setting(SETTING_QUIET);

	return who && who == pid;
}

static __always_inline void fill_header(struct record_header *header, __u32 kind)
{
	header->at = bpf_ktime_get_boot_ns();
	header->kind = kind;
	header->cpu = bpf_get_smp_processor_id();
}

/* The process that a task belongs to. */
static __always_inline void fill_process(struct process_key *key, struct task_struct *task)
{
	struct task_struct *leader = BPF_CORE_READ(task, group_leader);

	key->pid = BPF_CORE_READ(task, tgid);
	key->start = BPF_CORE_READ(leader, start_boottime);
	key->uid = BPF_CORE_READ(task, cred, euid.val);
}

static __always_inline void fill_current(struct process_key *key)
{
	struct task_struct *task = bpf_get_current_task_btf();

	key->pid = task->tgid;
	key->start = task->group_leader->start_boottime;
	key->uid = task->cred->euid.val;
}

/* What is remembered of a socket. With BPF_SK_STORAGE_GET_F_CREATE there is
 * always something, unless memory is short. */
static __always_inline struct memory *recall(void *sk, __u64 cookie, __u64 flags)
{
	struct memory *memory = bpf_sk_storage_get(&memories, sk, 0, flags);

	if (memory && memory->cookie != cookie) {
		/* Fresh, or a clone of the listener's: keep only its owner. */
		bool clone = memory->cookie != 0 && memory->owner.pid != 0;

		memory->cookie = cookie;
		memory->attribution = clone ? OWNER_INHERITED : OWNER_UNKNOWN;
		memory->since = 0;
		memory->reported = 0;
		memory->connecting = 0;
		memory->owed = 0;
	}
	return memory;
}

static __always_inline void own(struct memory *memory)
{
	fill_current(&memory->owner);
	memory->attribution = OWNER_CREATOR;
}

/* The owner may have become another user since. Returns true if it has. */
static __always_inline bool renew_user(struct memory *memory)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 uid = task->cred->euid.val;

	if (task->tgid != memory->owner.pid || uid == memory->owner.uid)
		return false;
	memory->owner.uid = uid;
	return true;
}

static __always_inline bool is_mapped(const __u8 *ip)
{
	const __u32 *word = (const __u32 *)ip;

	return word[0] == 0 && word[1] == 0 && word[2] == bpf_htonl(0xffff);
}

/* Makes a record from what is remembered of the socket. */
static __always_inline struct socket_record *make_record(const struct memory *memory, __u8 action,
							 __u8 protocol)
{
	struct socket_record *record;
	__u64 sequence;

	sequence = count(COUNTER_SOCKETS);
	record = bpf_ringbuf_reserve(&ring, sizeof(*record), 0);
	if (!record)
		return 0;
	fill_header(&record->header, RECORD_SOCKET);
	record->sequence = sequence;
	record->cookie = memory->cookie;
	record->owner = memory->owner;
	record->since = memory->since;
	record->bytes_sent = 0;
	record->bytes_received = 0;
	record->netns = memory->netns;
	record->local_port = memory->local_port;
	record->remote_port = memory->remote_port;
	record->action = action;
	record->attribution = memory->attribution;
	record->protocol = protocol;
	record->family = memory->family;
	record->old_state = 0;
	record->state = 0;
	record->error = 0;
	record->flags = 0;
	__builtin_memset(record->padding, 0, sizeof(record->padding));
	__builtin_memcpy(record->local_ip, memory->local_ip, 16);
	__builtin_memcpy(record->remote_ip, memory->remote_ip, 16);
	return record;
}

/*
 * TCP
 */

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
	struct socket_record *record;
	struct tcp_sock *tcp;

	if (is_quiet(memory->owner.pid))
		return true;
	record = make_record(memory, action, IPPROTO_TCP);
	if (!record)
		return false;
	record->old_state = old_state;
	record->state = state;
	if (action == ACTION_CLOSE) {
		record->error = sk->sk_err;
		tcp = bpf_skc_to_tcp_sock(sk);
		if (tcp && old_state != TCP_LISTEN) {
			count_bytes(tcp, &record->bytes_sent, &record->bytes_received);
			record->flags = FLAG_COUNTED;
		}
	}
	bpf_ringbuf_submit(record, 0);
	return true;
}

/*
 * Brief records: about connections over IPv4 that the user side knows, with
 * owner and beginning, from the record that opened the port. Each fills one
 * cache line of the ring; a good part of what a record costs is that the lines
 * move to the reader's core and back.
 */

static __always_inline bool can_be_brief(struct sock *sk, const struct memory *memory)
{
	if (memory && (!memory->reported || memory->owed || is_quiet(memory->owner.pid)))
		return false;
	return sk->__sk_common.skc_family == AF_INET;
}

static __always_inline void fill_brief(struct brief_record *record, struct sock *sk,
				       __u64 sequence, __u64 cookie, __u8 old_state, __u8 state)
{
	fill_header(&record->header, RECORD_BRIEF);
	record->sequence = sequence;
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
	__u64 sequence = count(COUNTER_SOCKETS);
	struct brief_record *record;
	struct tcp_sock *tcp;

	if (state != TCP_CLOSE) {
		record = bpf_ringbuf_reserve(&ring, BRIEF_SIZE, 0);
		if (!record)
			return;
		fill_brief(record, sk, sequence, cookie, old_state, state);
		bpf_ringbuf_submit(record, 0);
		return;
	}
	record = bpf_ringbuf_reserve(&ring, sizeof(*record), 0);
	if (!record)
		return;
	fill_brief(record, sk, sequence, cookie, old_state, state);
	record->error = sk->sk_err;
	record->bytes_sent = record->bytes_received = 0;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (tcp) {
		/* The socket has just given its port up, but not forgotten it. */
		record->local_port = bpf_ntohs(tcp->inet_conn.icsk_inet.inet_sport);
		if (old_state != TCP_LISTEN) {
			count_bytes(tcp, &record->bytes_sent, &record->bytes_received);
			record->flags = FLAG_COUNTED;
		}
	}
	bpf_ringbuf_submit(record, 0);
}

/* The record that opens the port. If it finds no room, the next ones of the
 * socket tell all that it would have told. */
static __always_inline void open_tcp(struct memory *memory, struct sock *sk, __u8 action,
				     __u8 old_state, __u8 state)
{
	memory->since = bpf_ktime_get_boot_ns();
	memory->reported = 1;
	refresh_tcp(memory, sk);
	memory->owed = !submit_tcp(memory, sk, action, old_state, state);
}

/*
 * A socket that connects needs no memory of its own: its first record tells
 * all, and whatever happens to it later is told by brief records. Making and
 * freeing a memory would cost more than all its records.
 */
static __always_inline void connect_tcp(struct memory *memory, struct sock *sk, __u64 cookie)
{
	struct memory first;

	if (memory) {
		__builtin_memset(memory->remote_ip, 0, 16);
		memory->remote_port = 0;
		memory->local_port = 0;
		memory->connecting = 1;
		own(memory);
		open_tcp(memory, sk, ACTION_CONNECT, TCP_CLOSE, TCP_SYN_SENT);
		return;
	}
	__builtin_memset(&first, 0, sizeof(first));
	first.cookie = cookie;
	first.connecting = 1;
	own(&first);
	open_tcp(&first, sk, ACTION_CONNECT, TCP_CLOSE, TCP_SYN_SENT);
	if (!first.owed)
		return;
	memory = bpf_sk_storage_get(&memories, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (memory)
		*memory = first;
}

static __always_inline int change_state(struct sock *sk, int old_state, int state)
{
	struct memory *memory, spare;
	bool is_new, keeps;
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
	if (!memory) {
		if (!is_new && old_state != TCP_SYN_RECV && can_be_brief(sk, 0)) {
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
		/* Without a bind before, the port is only chosen after this; the
		 * user side looks it up. */
		open_tcp(memory, sk, ACTION_LISTEN, old_state, state);
		return 0;
	}
	if (state == TCP_SYN_RECV)
		memory->connecting = 1;
	/* Where nobody was seen to accept, the process that closes is the user. */
	if (in_user_context(sk)) {
		if (memory->attribution == OWNER_INHERITED ||
		    memory->attribution == OWNER_UNKNOWN) {
			own(memory);
			memory->owed = 1;
		} else if (renew_user(memory)) {
			memory->owed = 1;
		}
	}
	if (state == TCP_ESTABLISHED && old_state == TCP_SYN_RECV && !memory->connecting) {
		open_tcp(memory, sk, ACTION_ACCEPT, old_state, state);
		return 0;
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
	return change_state(sk, old_state, state);
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

/*
 * UDP. There is no tracepoint for its states; the programs of the cgroup at
 * the root run in the caller's own context.
 */

static __always_inline void report_udp(struct memory *memory, __u8 action)
{
	struct socket_record *record;

	if (is_quiet(memory->owner.pid))
		return;
	record = make_record(memory, action, IPPROTO_UDP);
	if (!record)
		return;
	bpf_ringbuf_submit(record, 0);
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

/* Remembers the socket and, as soon as it has a port, reports it. */
static __always_inline void bind_udp(void *ctx, struct bpf_sock *sk)
{
	struct memory *memory;

	if (!sk || sk->protocol != IPPROTO_UDP)
		return;
	memory = bpf_sk_storage_get(&memories, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!memory)
		return;
	if (memory->reported) {
		if (sk->src_port == memory->local_port)
			return;
		/* connect(AF_UNSPEC) gave the port up; what follows is another. */
		report_udp(memory, ACTION_CLOSE);
		memory->reported = 0;
	}
	memory->cookie = bpf_get_socket_cookie(ctx);
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
	bind_udp(ctx, ctx);
	return 1;
}

SEC("cgroup/post_bind6")
int udp_bind6(struct bpf_sock *ctx)
{
	mark_fired(HOOK_UDP_BIND6);
	bind_udp(ctx, ctx);
	return 1;
}

SEC("cgroup/sendmsg4")
int udp_send4(struct bpf_sock_addr *ctx)
{
	mark_fired(HOOK_UDP_SEND4);
	bind_udp(ctx, ctx->sk);
	return 1;
}

SEC("cgroup/sendmsg6")
int udp_send6(struct bpf_sock_addr *ctx)
{
	mark_fired(HOOK_UDP_SEND6);
	bind_udp(ctx, ctx->sk);
	return 1;
}

/* connect() chooses a port only after this, if the socket has none yet; then
 * the first send reports it, or the close. */
static __always_inline void connect_udp(struct bpf_sock_addr *ctx)
{
	if (ctx->protocol == IPPROTO_UDP)
		bind_udp(ctx, ctx->sk);
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

/* The last descriptor of a socket is closed. */
SEC("cgroup/sock_release")
int socket_release(struct bpf_sock *ctx)
{
	struct memory *memory;
	__u16 port;

	mark_fired(HOOK_SOCKET_RELEASE);
	if (ctx->protocol != IPPROTO_UDP)
		return 1;
	memory = bpf_sk_storage_get(&memories, ctx, 0, 0);
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

/*
 * Who accepted a connection. accept() itself cannot be seen without tracing
 * functions or every system call; what can is that it asks for the peer's
 * address, and the first send. Until then the owner is the listener's.
 */

static __always_inline void take_over(struct memory *memory)
{
	struct owner_record *record;

	if (memory->attribution != OWNER_INHERITED)
		return;
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
	if (sk->sk_protocol == IPPROTO_TCP) {
		take_over(memory);
	} else if (sk->sk_protocol == IPPROTO_UDP && !memory->reported) {
		refresh_udp(memory, sk);
		if (memory->local_port) {
			memory->reported = 1;
			report_udp(memory, ACTION_BIND);
		}
	}
	return 0;
}

/*
 * Processes
 */

/*
 * Writes the components of a path from the last to the first, each ended by a
 * NUL, and returns their length. Mounts are climbed, so that the path is the
 * one that the process sees below the root of its mount namespace.
 */
static __always_inline __u32 write_path(struct exec_record *record, struct file *file)
{
	struct dentry *dentry = BPF_CORE_READ(file, f_path.dentry);
	struct vfsmount *vfsmount = BPF_CORE_READ(file, f_path.mnt);
	__u32 length = 0;
	int i;

	record->path_cut = 1;
#pragma clang loop unroll(disable)
	for (i = 0; i < 64; i++) {
		struct dentry *parent = BPF_CORE_READ(dentry, d_parent);
		struct dentry *root = BPF_CORE_READ(vfsmount, mnt_root);
		const unsigned char *name;
		long written;

		if (dentry == root || dentry == parent) {
			struct mount *mount = (void *)vfsmount -
					      bpf_core_field_offset(struct mount, mnt);
			struct mount *above = BPF_CORE_READ(mount, mnt_parent);

			if (dentry != root || mount == above) {
				record->path_cut = 0;
				break;
			}
			dentry = BPF_CORE_READ(mount, mnt_mountpoint);
			vfsmount = (void *)above + bpf_core_field_offset(struct mount, mnt);
			continue;
		}
		if (length > EXEC_PATH - 256)
			break;
		name = BPF_CORE_READ(dentry, d_name.name);
		written = bpf_probe_read_kernel_str(record->data + length, 256, name);
		if (written < 0)
			break;
		length += written & 0x1ff;
		dentry = parent;
	}
	return length;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(process_exec, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	__u32 zero = 0;
	struct exec_record *record = bpf_map_lookup_elem(&exec_scratch, &zero);
	unsigned long start, end;
	__u32 path, arguments;

	mark_fired(HOOK_EXEC);
	if (!record)
		return 0;
	fill_header(&record->header, RECORD_EXEC);
	fill_process(&record->process, task);
	record->cgroup = bpf_get_current_cgroup_id();
	record->parent = BPF_CORE_READ(task, real_parent, tgid);
	BPF_CORE_READ_STR_INTO(&record->comm, task, comm);

	path = write_path(record, BPF_CORE_READ(bprm, file));
	if (path > EXEC_PATH)
		path = EXEC_PATH;
	record->path_length = path;

	start = BPF_CORE_READ(task, mm, arg_start);
	end = BPF_CORE_READ(task, mm, arg_end);
	arguments = end > start ? end - start : 0;
	record->arguments_cut = arguments > EXEC_ARGUMENTS;
	if (arguments > EXEC_ARGUMENTS)
		arguments = EXEC_ARGUMENTS;
	if (arguments && bpf_probe_read_user(record->data + path, arguments, (void *)start))
		arguments = 0;
	record->arguments_length = arguments;

	path += arguments;
	if (path > EXEC_DATA)
		path = EXEC_DATA;
	if (bpf_ringbuf_output(&ring, record, __builtin_offsetof(struct exec_record, data) + path, 0))
		count(COUNTER_PROCESSES_LOST);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(process_fork, struct task_struct *parent, struct task_struct *child)
{
	struct fork_record *record;

	if (child->pid != child->tgid)
		return 0;
	mark_fired(HOOK_FORK);
	record = bpf_ringbuf_reserve(&ring, sizeof(*record), 0);
	if (!record) {
		count(COUNTER_PROCESSES_LOST);
		return 0;
	}
	fill_header(&record->header, RECORD_FORK);
	fill_process(&record->parent, parent);
	fill_process(&record->child, child);
	bpf_ringbuf_submit(record, 0);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(process_exit, struct task_struct *task)
{
	struct exit_record *record;

	/* The process is gone with its last thread. */
	if (task->signal->live.counter > 0)
		return 0;
	mark_fired(HOOK_EXIT);
	record = bpf_ringbuf_reserve(&ring, sizeof(*record), 0);
	if (!record) {
		count(COUNTER_PROCESSES_LOST);
		return 0;
	}
	fill_header(&record->header, RECORD_EXIT);
	fill_process(&record->process, task);
	bpf_ringbuf_submit(record, 0);
	return 0;
}

SEC("tp_btf/cgroup_mkdir")
int BPF_PROG(group_made, struct cgroup *group, const char *path)
{
	struct cgroup_record *record;

	if (group->root->hierarchy_id != 0)
		return 0;
	mark_fired(HOOK_CGROUP);
	record = bpf_ringbuf_reserve(&ring, sizeof(*record), 0);
	if (!record) {
		count(COUNTER_PROCESSES_LOST);
		return 0;
	}
	fill_header(&record->header, RECORD_CGROUP);
	record->id = group->kn->id;
	record->path[0] = 0;
	bpf_probe_read_kernel_str(record->path, sizeof(record->path), path);
	bpf_ringbuf_submit(record, 0);
	return 0;
}

/*
 * The snapshot: every descriptor of every process that is a socket with a
 * port. It also plants the owner in the socket's memory, so that what happens
 * to it from now on is known to be its.
 */
SEC("iter/task_file")
int sockets_of_tasks(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct snapshot_row row = {};
	struct memory *memory;
	struct inet_sock *inet;
	struct socket *socket;
	struct sock *sk;
	__u8 listening;

	if (!task || !file)
		return 0;
	socket = bpf_sock_from_file(file);
	if (!socket)
		return 0;
	sk = socket->sk;
	if (!sk)
		return 0;
	row.family = BPF_CORE_READ(sk, __sk_common.skc_family);
	if (row.family != AF_INET && row.family != AF_INET6)
		return 0;
	row.protocol = BPF_CORE_READ(sk, sk_protocol);
	if (row.protocol != IPPROTO_TCP && row.protocol != IPPROTO_UDP)
		return 0;
	row.state = BPF_CORE_READ(sk, __sk_common.skc_state);
	inet = (struct inet_sock *)sk;
	row.local_port = bpf_ntohs(BPF_CORE_READ(inet, inet_sport));
	/* Not in use: no port, or TCP that only reserves one, or is finished. */
	if (!row.local_port || (row.protocol == IPPROTO_TCP && row.state == TCP_CLOSE))
		return 0;
	listening = row.protocol == IPPROTO_TCP && row.state == TCP_LISTEN;
	if (!listening)
		row.remote_port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
	row.netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	row.uid = BPF_CORE_READ(sk, sk_uid.val);
	row.pid = BPF_CORE_READ(task, tgid);
	row.start = BPF_CORE_READ(task, group_leader, start_boottime);
	row.cookie = bpf_get_socket_cookie(sk);
	if (row.family == AF_INET) {
		*(__be32 *)row.local_ip = BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr);
		*(__be32 *)row.remote_ip = BPF_CORE_READ(sk, __sk_common.skc_daddr);
	} else {
		BPF_CORE_READ_INTO(&row.local_ip, sk, __sk_common.skc_v6_rcv_saddr);
		BPF_CORE_READ_INTO(&row.remote_ip, sk, __sk_common.skc_v6_daddr);
	}

	memory = bpf_sk_storage_get(&memories, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (memory && !memory->cookie) {
		fill_process(&memory->owner, task);
		memory->attribution = OWNER_SNAPSHOT;
		memory->family = row.family;
		memory->netns = row.netns;
		memory->local_port = row.local_port;
		memory->remote_port = row.remote_port;
		__builtin_memcpy(memory->local_ip, row.local_ip, 16);
		__builtin_memcpy(memory->remote_ip, row.remote_ip, 16);
		memory->reported = 1;
		memory->cookie = row.cookie;
	}
	bpf_seq_write(ctx->meta->seq, &row, sizeof(row));
	return 0;
}
