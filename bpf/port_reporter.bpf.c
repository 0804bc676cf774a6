// SPDX-License-Identifier: (MIT OR GPL-2.0-only)
/*
 * The kernel side of the recorder: what happens to every TCP and UDP socket of
 * the machine, and to those that take packets without a port, in all network
 * namespaces, and which process did it.
 *
 * The owner of a socket is taken where a process makes the call (listen,
 * connect, bind, send, accept) and kept in the socket's own storage; most
 * changes of a TCP state happen later in a softirq, where "current" is a
 * stranger. The storage is cloned with the listener, so that a connection
 * knows its listener's owner before anybody has accepted it.
 *
 * Nothing here decides by kernel version: each program is tried on its own,
 * and "fired" shows which of them have run.
 */
#include "common.bpf.h"
#include "tcp.bpf.h"
#include "udp.bpf.h"
#include "other_hooks.bpf.h"
#include "owner.bpf.h"
#include "processes.bpf.h"
#include "snapshot.bpf.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";
