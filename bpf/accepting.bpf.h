/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/*
 * Connections that came in and that nobody was seen to use yet.
 *
 * Storage of the socket's own, cloned from the listener's, would cost more to
 * make and free than all records of a short connection. All that has to be known
 * is that nobody uses it yet, and that not for long.
 */
#ifndef PORT_REPORTER_ACCEPTING_H
#define PORT_REPORTER_ACCEPTING_H

#include "common.bpf.h"

/* A connection that nobody was seen to use. */
struct unused {
	__u64 cookie;
	__u32 acceptor;		/* who accepted it, and may yet pass it on; 0: not seen */
	__u32 padding;
};

/* Cookies are given out in order: the place of one is taken by another only
 * when so many sockets were made since. */
#define UNUSED_PLACES (1 << 16)

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, UNUSED_PLACES);
	__type(key, __u32);
	__type(value, struct unused);
} unused_connections SEC(".maps");

static __always_inline struct unused *unused_place(__u64 cookie)
{
	__u32 place = cookie % UNUSED_PLACES;

	return bpf_map_lookup_elem(&unused_connections, &place);
}

/* The connection, if nobody was seen to use it yet. */
static __always_inline struct unused *find_unused(__u64 cookie)
{
	struct unused *unused = unused_place(cookie);

	return unused && cookie && unused->cookie == cookie ? unused : 0;
}

static __always_inline void expect_use(__u64 cookie)
{
	struct unused *unused = unused_place(cookie);

	if (!unused)
		return;
	unused->acceptor = 0;
	unused->cookie = cookie;
}

/* The current process uses the connection. Is it seen for the first time to have
 * it? It is if nobody was seen to accept it, or another process was, which has
 * then passed it on. */
static __always_inline bool is_first_use(__u64 cookie)
{
	struct unused *unused = find_unused(cookie);

	if (!unused)
		return false;
	unused->cookie = 0;
	return unused->acceptor != (__u32)bpf_get_current_task_btf()->tgid;
}

/* The listener of the recorder while it proves the hooks. */
struct quiet_listener {
	__u64 netns;
	__u32 port;
	__u32 padding;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct quiet_listener);
} quiet_listeners SEC(".maps");

static __always_inline void note_quiet_listener(const struct memory *memory, struct sock *sk)
{
	__u32 zero = 0;
	struct quiet_listener *quiet;

	if (!is_quiet(memory->owner.pid))
		return;
	quiet = bpf_map_lookup_elem(&quiet_listeners, &zero);
	if (!quiet)
		return;
	quiet->netns = (__u64)sk->__sk_common.skc_net.net;
	quiet->port = sk->__sk_common.skc_num;
}

/* Who listens is for the user side to say, which knows all listeners. But what
 * comes in to the recorder itself, while it is quiet, has to be known here. */
static __always_inline void own_if_quiet(struct memory *memory, struct sock *sk)
{
	__u32 who = setting(SETTING_QUIET), zero = 0;
	struct quiet_listener *quiet;

	if (!who)
		return;
	quiet = bpf_map_lookup_elem(&quiet_listeners, &zero);
	if (quiet && quiet->netns == (__u64)sk->__sk_common.skc_net.net &&
	    quiet->port == sk->__sk_common.skc_num)
		memory->owner.pid = who;
}

#endif
