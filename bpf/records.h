/* SPDX-License-Identifier: (MIT OR GPL-2.0-only) */
/*
 * What the kernel side hands to the user side: the layout of each record in
 * the ring and of each row of the iterator.
 *
 * The Rust mirror is crates/sensor/src/linux/ebpf/record.rs; the list of
 * offsets at the end binds the two together.
 *
 * All numbers are in host byte order, addresses in network byte order. A v4
 * address fills the first four bytes. Times are nanoseconds since boot with
 * suspend included (CLOCK_BOOTTIME).
 */
#ifndef PORT_REPORTER_RECORDS_H
#define PORT_REPORTER_RECORDS_H

enum record_kind {
	RECORD_SOCKET = 1,
	RECORD_OWNER = 2,
	RECORD_EXEC = 3,
	RECORD_FORK = 4,
	RECORD_EXIT = 5,
	RECORD_CGROUP = 6,
	RECORD_BRIEF = 7,
	RECORD_OPENING = 8,
};

/*
 * The ring. A record takes as many slots as it needs, in a row; positions count
 * slots from the first one on, and never start again.
 */
#define SLOT_WORDS 7
#define RING_SIZE_BITS 16

struct ring_slot {
	/* Of the first slot of a record: its position plus one, then 16 bits with
	 * the record's size in bytes. Of others: what was there before. */
	__u64 head;
	__u64 data[SLOT_WORDS];
};

struct ring_ends {
	__u64 claimed;		/* the position after the last record */
	__u64 padding[7];
	/* Written by the user side: */
	__u64 taken;		/* what is before this position may be written again */
	__u32 slots;		/* how many there are: a power of two */
	__u32 is_weakly_ordered;	/* the processor may reorder what it writes */
	__u32 is_sleeping;	/* it has to be woken; the kernel side resets it */
	__u32 more_padding;
};

/* What happened to a socket. */
enum socket_action {
	ACTION_LISTEN = 1,
	ACTION_BIND = 2,
	ACTION_CONNECT = 3,
	ACTION_ACCEPT = 4,
	ACTION_ESTABLISHED = 5,
	ACTION_STATE = 6,
	ACTION_CLOSE = 7,
};

/* How the owner is known. */
enum attribution {
	OWNER_UNKNOWN = 0,
	OWNER_CREATOR = 1,
	OWNER_INHERITED = 2,
	OWNER_SNAPSHOT = 3,
};

/*
 * socket_record.protocol and snapshot_row.protocol are an IPPROTO_ number that
 * has ports (TCP, UDP, UDP-Lite), or one of these. A raw or packet socket has
 * the number of its IP protocol or its EtherType in place of the local port,
 * and for a packet socket the family is AF_PACKET and the addresses are zero.
 */
enum record_protocol {
	PROTOCOL_PING = 1,	/* ICMP or ICMPv6, by the family */
	PROTOCOL_PACKET = 254,
	PROTOCOL_RAW = 255,
};

/* socket_record.flags */
enum socket_flag {
	FLAG_COUNTED = 1,	/* bytes_sent and bytes_received are known */
};

struct record_header {
	__u64 at;		/* 0 in an owner_record */
	__u32 kind;		/* enum record_kind */
	__u32 cpu;
};

struct process_key {
	__u64 start;		/* start_boottime of the thread group leader */
	__u32 pid;		/* thread group, initial PID namespace; 0: unknown */
	__u32 uid;		/* effective */
};

struct socket_record {
	struct record_header header;
	__u64 sequence;		/* of socket records on this CPU, without holes */
	__u64 cookie;		/* 0: a packet socket that is about to be made */
	struct process_key owner;
	__u64 since;		/* when the socket came into use; 0: unknown */
	__u64 bytes_sent;
	__u64 bytes_received;
	__u32 netns;		/* inode number; 0: unknown */
	__u16 local_port;
	__u16 remote_port;
	__u8 action;		/* enum socket_action */
	__u8 attribution;	/* enum attribution */
	__u8 protocol;		/* IPPROTO_*, or enum record_protocol */
	__u8 family;		/* AF_INET, AF_INET6 or AF_PACKET */
	__u8 old_state;		/* include/net/tcp_states.h; 0: none */
	__u8 state;
	__u16 error;		/* sk_err when the socket closed */
	__u8 flags;		/* enum socket_flag */
	__u8 padding[7];
	__u8 local_ip[16];
	__u8 remote_ip[16];
};

/*
 * A change of a TCP connection over IPv4 that the user side knows: without the
 * owner. The action follows from the states. The last two members are there
 * only if the state is TCP_CLOSE.
 */
struct brief_record {
	struct record_header header;
	__u64 sequence;
	__u64 cookie;
	__u32 netns;
	__u16 local_port;	/* 0: given up */
	__u16 remote_port;
	__u8 old_state;
	__u8 state;
	__u16 error;		/* sk_err when the socket closed */
	__u8 flags;		/* enum socket_flag */
	__u8 padding[3];
	__be32 local_ip;
	__be32 remote_ip;
	__u64 bytes_sent;
	__u64 bytes_received;
};

#define BRIEF_SIZE __builtin_offsetof(struct brief_record, bytes_sent)

/*
 * A TCP connection over IPv4 comes into use, going out or in. Up to its last
 * member it is laid out like a brief record.
 */
struct opening_record {
	struct record_header header;
	__u64 sequence;
	__u64 cookie;
	__u32 netns;
	__u16 local_port;	/* 0: not chosen yet */
	__u16 remote_port;
	__u8 old_state;
	__u8 state;		/* TCP_SYN_SENT or TCP_ESTABLISHED */
	__u8 zero[3];		/* no error, and nothing counted */
	__u8 attribution;	/* enum attribution */
	__u8 padding[2];
	__be32 local_ip;
	__be32 remote_ip;
	struct process_key owner;
};

/* The process that accepted a connection. */
struct owner_record {
	struct record_header header;
	__u64 cookie;
	struct process_key owner;
};

struct fork_record {
	struct record_header header;
	struct process_key parent;
	struct process_key child;
};

struct exit_record {
	struct record_header header;
	struct process_key process;
};

#define EXEC_ARGUMENTS 2048
#define EXEC_PATH 3072
#define EXEC_DATA (EXEC_ARGUMENTS + EXEC_PATH)

/*
 * Followed in data[] by path_length bytes of path: its components from the
 * last to the first, each ended by a NUL; then by arguments_length bytes of
 * arguments, each ended by a NUL.
 */
struct exec_record {
	struct record_header header;
	struct process_key process;
	__u64 cgroup;		/* number of its group in cgroup2 */
	__u32 parent;
	__u16 path_length;	/* 0: the path could not be read */
	__u16 arguments_length;
	__u8 path_cut;		/* the path had more components than fit */
	__u8 arguments_cut;	/* there were more arguments than fit */
	__u8 padding[6];
	char comm[16];
	char data[EXEC_DATA];
};

#define CGROUP_PATH 1024

struct cgroup_record {
	struct record_header header;
	__u64 id;
	char path[CGROUP_PATH];	/* ended by a NUL */
};

/* One row of the snapshot: a file descriptor that is a socket with a port, or
 * one that takes packets without. */
struct snapshot_row {
	__u64 cookie;
	__u64 start;		/* of the process, as in process_key */
	__u32 pid;
	__u32 uid;		/* that the socket belongs to */
	__u32 netns;
	__u16 local_port;
	__u16 remote_port;
	__u8 protocol;
	__u8 family;
	__u8 state;
	__u8 padding[5];
	__u8 local_ip[16];
	__u8 remote_ip[16];
};

/* How many network namespaces are told. */
#define NAMESPACES 1023

/* The network namespaces that the kernel has. */
struct namespaces {
	__u32 count;			/* 0: they were not told, or are more */
	__u32 inums[NAMESPACES];
};

/* Keys of the array "fired": which programs have run at least once. */
enum hook {
	HOOK_TCP_STATE,
	HOOK_TCP_NESTED,
	HOOK_UDP_BIND4,
	HOOK_UDP_BIND6,
	HOOK_UDP_SEND4,
	HOOK_UDP_SEND6,
	HOOK_UDP_CONNECT4,
	HOOK_UDP_CONNECT6,
	HOOK_SOCKET_RELEASE,
	HOOK_TCP_ACCEPT4,
	HOOK_TCP_ACCEPT6,
	HOOK_SEND,
	HOOK_EXEC,
	HOOK_FORK,
	HOOK_EXIT,
	HOOK_CGROUP,
	HOOK_TCP_ACCEPTED,
	HOOK_UDP_CONNECTED4,
	HOOK_UDP_CONNECTED6,
	HOOK_SOCKET_CREATE,
	HOOK_PACKET_MADE,
	HOOK_PACKET_RELEASED,
	HOOK_PACKET_ASKED,
	HOOKS,
};

/* Keys of the array "settings". */
enum setting {
	/* The process whose sockets are not reported: the recorder while it
	 * proves the hooks. 0: none. */
	SETTING_QUIET,
	/* 1: the user side has its snapshot and knows every socket. */
	SETTING_LEAN,
	SETTINGS,
};

/* Keys of the per-CPU array "counters". */
enum counter {
	COUNTER_SOCKETS,	/* socket records made: the next sequence number */
	COUNTER_PROCESSES_LOST,	/* records about processes that found no room */
	COUNTER_NESTED,		/* changes seen while tcp_state was interrupted */
	COUNTERS,
};

/*
 * The offsets, checked by the C compiler here and by the tests of record.rs,
 * which read these very lines.
 */
#define OFFSET(record, member, offset) \
	_Static_assert(__builtin_offsetof(struct record, member) == offset, #record "." #member)
#define SIZE(record, size) _Static_assert(sizeof(struct record) == size, #record)

OFFSET(ring_slot, head, 0);
OFFSET(ring_slot, data, 8);
OFFSET(ring_ends, claimed, 0);
OFFSET(ring_ends, taken, 64);
OFFSET(ring_ends, slots, 72);
OFFSET(ring_ends, is_weakly_ordered, 76);
OFFSET(ring_ends, is_sleeping, 80);
OFFSET(record_header, at, 0);
OFFSET(record_header, kind, 8);
OFFSET(record_header, cpu, 12);
OFFSET(process_key, start, 0);
OFFSET(process_key, pid, 8);
OFFSET(process_key, uid, 12);
OFFSET(socket_record, sequence, 16);
OFFSET(socket_record, cookie, 24);
OFFSET(socket_record, owner, 32);
OFFSET(socket_record, since, 48);
OFFSET(socket_record, bytes_sent, 56);
OFFSET(socket_record, bytes_received, 64);
OFFSET(socket_record, netns, 72);
OFFSET(socket_record, local_port, 76);
OFFSET(socket_record, remote_port, 78);
OFFSET(socket_record, action, 80);
OFFSET(socket_record, attribution, 81);
OFFSET(socket_record, protocol, 82);
OFFSET(socket_record, family, 83);
OFFSET(socket_record, old_state, 84);
OFFSET(socket_record, state, 85);
OFFSET(socket_record, error, 86);
OFFSET(socket_record, flags, 88);
OFFSET(socket_record, local_ip, 96);
OFFSET(socket_record, remote_ip, 112);
OFFSET(brief_record, sequence, 16);
OFFSET(brief_record, cookie, 24);
OFFSET(brief_record, netns, 32);
OFFSET(brief_record, local_port, 36);
OFFSET(brief_record, remote_port, 38);
OFFSET(brief_record, old_state, 40);
OFFSET(brief_record, state, 41);
OFFSET(brief_record, error, 42);
OFFSET(brief_record, flags, 44);
OFFSET(brief_record, local_ip, 48);
OFFSET(brief_record, remote_ip, 52);
OFFSET(brief_record, bytes_sent, 56);
OFFSET(brief_record, bytes_received, 64);
OFFSET(opening_record, sequence, 16);
OFFSET(opening_record, cookie, 24);
OFFSET(opening_record, netns, 32);
OFFSET(opening_record, local_port, 36);
OFFSET(opening_record, remote_port, 38);
OFFSET(opening_record, old_state, 40);
OFFSET(opening_record, state, 41);
OFFSET(opening_record, zero, 42);
OFFSET(opening_record, attribution, 45);
OFFSET(opening_record, local_ip, 48);
OFFSET(opening_record, remote_ip, 52);
OFFSET(opening_record, owner, 56);
OFFSET(owner_record, cookie, 16);
OFFSET(owner_record, owner, 24);
OFFSET(fork_record, parent, 16);
OFFSET(fork_record, child, 32);
OFFSET(exit_record, process, 16);
OFFSET(exec_record, process, 16);
OFFSET(exec_record, cgroup, 32);
OFFSET(exec_record, parent, 40);
OFFSET(exec_record, path_length, 44);
OFFSET(exec_record, arguments_length, 46);
OFFSET(exec_record, path_cut, 48);
OFFSET(exec_record, arguments_cut, 49);
OFFSET(exec_record, comm, 56);
OFFSET(exec_record, data, 72);
OFFSET(cgroup_record, id, 16);
OFFSET(cgroup_record, path, 24);
OFFSET(snapshot_row, cookie, 0);
OFFSET(snapshot_row, start, 8);
OFFSET(snapshot_row, pid, 16);
OFFSET(snapshot_row, uid, 20);
OFFSET(snapshot_row, netns, 24);
OFFSET(snapshot_row, local_port, 28);
OFFSET(snapshot_row, remote_port, 30);
OFFSET(snapshot_row, protocol, 32);
OFFSET(snapshot_row, family, 33);
OFFSET(snapshot_row, state, 34);
OFFSET(snapshot_row, local_ip, 40);
OFFSET(snapshot_row, remote_ip, 56);
OFFSET(namespaces, count, 0);
OFFSET(namespaces, inums, 4);
SIZE(ring_slot, 64);
SIZE(ring_ends, 88);
SIZE(socket_record, 128);
SIZE(brief_record, 72);
SIZE(owner_record, 40);
SIZE(fork_record, 48);
SIZE(exit_record, 32);
SIZE(snapshot_row, 72);
SIZE(namespaces, 4096);

#endif
