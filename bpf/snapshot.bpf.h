/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/*
 * The snapshot: each descriptor of a process that is a socket with a port, or
 * one that takes packets without. It also plants the owner in the socket's
 * memory, so that what happens to it from now on is known to be its. When all
 * descriptors were seen, the network namespaces that there are.
 */
#ifndef PORT_REPORTER_SNAPSHOT_H
#define PORT_REPORTER_SNAPSHOT_H

#include "common.bpf.h"
#include "other.bpf.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct namespaces);
} namespaces SEC(".maps");

/* Goes round the list of all network namespaces. Its head is no namespace and
 * cannot be told from one: what is read there is a number more, in no use. */
static __always_inline void tell_namespaces(struct task_struct *task)
{
	__u32 zero = 0, i;
	struct namespaces *told = bpf_map_lookup_elem(&namespaces, &zero);
	struct net *first = BPF_CORE_READ(task, nsproxy, net_ns);
	struct net *net = first;

	if (!told)
		return;
#pragma clang loop unroll(disable)
	for (i = 0; i < NAMESPACES && net; i++) {
		told->inums[i] = BPF_CORE_READ(net, ns.inum);
		net = (void *)BPF_CORE_READ(net, list.next) - bpf_core_field_offset(net->list);
		if (net == first) {
			told->count = i + 1;
			return;
		}
	}
}

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

	/* It is called without a file when there are no more. */
	if (!task || !file) {
		tell_namespaces(bpf_get_current_task_btf());
		return 0;
	}
	socket = bpf_sock_from_file(file);
	if (!socket)
		return 0;
	sk = socket->sk;
	if (!sk)
		return 0;
	row.family = BPF_CORE_READ(sk, __sk_common.skc_family);
	if (row.family != AF_INET && row.family != AF_INET6 && row.family != AF_PACKET)
		return 0;
	row.protocol = other_socket(sk, row.family, &row.local_port);
	if (!row.protocol) {
		row.protocol = BPF_CORE_READ(sk, sk_protocol);
		if (row.protocol != IPPROTO_TCP && !is_udp(row.protocol))
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
	}
	row.netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	row.uid = BPF_CORE_READ(sk, sk_uid.val);
	row.pid = BPF_CORE_READ(task, tgid);
	row.start = BPF_CORE_READ(task, group_leader, start_boottime);
	row.cookie = bpf_get_socket_cookie(sk);
	if (row.family == AF_INET) {
		*(__be32 *)row.local_ip = BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr);
		*(__be32 *)row.remote_ip = BPF_CORE_READ(sk, __sk_common.skc_daddr);
	} else if (row.family == AF_INET6) {
		BPF_CORE_READ_INTO(&row.local_ip, sk, __sk_common.skc_v6_rcv_saddr);
		BPF_CORE_READ_INTO(&row.remote_ip, sk, __sk_common.skc_v6_daddr);
	}

	memory = bpf_sk_storage_get(&memories, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (memory && !memory->cookie) {
		fill_process(&memory->owner, task);
		memory->attribution = OWNER_SNAPSHOT;
		memory->protocol = row.protocol == IPPROTO_TCP ? 0 : row.protocol;
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

#endif
