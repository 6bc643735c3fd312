// Package redis keeps the rate limits that all nodes of a cluster share.
//
// # Leases
//
// Nodes take permits from Redis in advance, for many limits with one call of a script, and Reserve spends them without
// the network. Redis keeps a debt for every limit, as limits/memory does, and beside it what each node holds:
//
//	debt      was sent, and is paid off at the limit's rate
//	held      was given to a node and may be sent at any time; it is not paid off
//	debt + held + asked ≤ burst, or nothing is given
//
// A node says with each call what it has spent, and how long ago; that moves from held to debt. What it does not use
// within giveBack it gives back whole. So over any window of w seconds all nodes together pass at most rate×w + burst,
// whenever between lease and return a node spends its permits. A permit that would be free within ahead is given in
// advance, to be spent from then on.
//
// Holding is bound to a session, which ends when a node has not called for ttl. The node stops spending by its own clock
// before Redis, by its, counts what the node held as sent. Redis' own time is the only one that counts there.
//
// # Without Redis
//
// A node without a session passes nothing until Redis and the other nodes can have heard of it (closedFor). Then it goes
// by its own share: rate and burst ÷ live nodes. For a burst below the number of nodes, where a share would be less than
// one message, one node that all agree on (by rendezvous hashing over the members) has the whole limit, and the others
// pass nothing. Both begin in full debt.
//
// Debts in Redis are paid in a common time, which runs at the part of the nodes that have a session: who is cut off uses
// the rest by itself. What a node has passed alone and is not paid off it declares when it comes back.
//
// # Who is alive
//
// Nodes read the roster at different times, so they divide by different numbers for a while. A node uses a share only
// when nobody goes by a list without it any more (Options.Members says so; the share begins spread later), and not at
// all when it does not know who is alive: the others may have divided its share among them. A limit is divided by more
// nodes at once, and by fewer spread after that was read; who is gone has stopped before. A part that was somebody
// else's begins in debt, on a node and in Redis: nobody tells what has been sent of it. Redis counts a node that the
// others may not count only where nobody is cut off, and one that sends nothing never. A limit that was one node's, or
// is to be, is nobody's until no two nodes can disagree any more about how many they are (settled).
//
// # When Redis forgets
//
// After a flush, a restart or a failover to a replica that is behind, and when Redis' clock jumps, every limit begins in
// full debt (a new epoch): nobody knows what has been sent. The script notices by the state that is gone, or by a count
// of calls that is lower than what a node has seen.
//
// # Limits of it
//
// A burst below about 5 ms of the rate cannot be used in full: leases change hands every few milliseconds. A cost above
// the burst counts as the burst, as ever, but on each node that is cut off. Redis must not evict keys (maxmemory-policy
// noeviction). All keys carry one hash tag, so that they are on one server of a Redis Cluster.
package redis
