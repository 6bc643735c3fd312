package faults

// Matrix lists the rows. A test that is no row, or a row without its test, fails TestMatrix.
func Matrix() []Fault {
	const (
		pg, mq, redis    = "PostgreSQL", "RabbitMQ", "Redis"
		net, node        = "Network", "Engines"
		pgFile, failFile = "postgres_test.go", "failover_test.go"
		mqFile, rdFile   = "rabbit_test.go", "redis_test.go"
		netFile          = "network_test.go"
		nodeFile         = "node_test.go"
	)
	return []Fault{
		{"TestPostgresKill", pgFile, pg, "PostgreSQL is killed and started again 3 s later",
			"requests get 503 within 1 s; attempts under way end, and their outcomes are committed afterwards, none in doubt; " +
				"the first hand-off comes within 2 s of its return"},
		{"TestPostgresRestart", pgFile, pg, "PostgreSQL is restarted in good order, three times",
			"requests get 503 within 1 s while it is away, and nothing is in doubt"},
		{"TestPostgresHang", pgFile, pg, "PostgreSQL stands still (SIGSTOP) for 15 s, longer than a lease",
			"every request is answered, /readyz names the store, both nodes stop claiming, memory stays bounded"},
		{"TestPostgresSlow", pgFile, pg, "every answer of PostgreSQL takes 500 ms longer, for 15 s",
			"messages are taken and handed over all the time, with pauses of seconds"},
		{"TestPostgresLostCommit", pgFile, pg, "the connection breaks during COMMIT, which the server still does, again and again",
			"the client is told that the outcome is unknown, and the same key finds the message: none is stored twice"},
		{"TestPostgresDiskFull", pgFile, pg, "the disk of PostgreSQL is full for 5 s",
			"requests get 503 or 507 and store nothing; everything goes on by itself when there is room"},
		{"TestPostgresDeadlock", pgFile, pg, "another session locks rows in the wrong order, so that PostgreSQL ends transactions " +
			"of the engines as victims of deadlocks",
			"they run again inside; a client is told to come again at most"},
		{"TestPostgresForeignTransaction", pgFile, pg, "a session of somebody else holds an old snapshot and the locks of some " +
			"messages, idle in transaction",
			"everything else goes on at its rate; what it has locked goes when it lets go"},
		{"TestPostgresFailoverSynchronous", failFile, pg, "the primary is lost, and its synchronous replica is promoted",
			"nothing acknowledged is lost; the nodes find the new primary by themselves"},
		{"TestPostgresFailoverAsynchronous", failFile, pg, "the primary is lost while its asynchronous replica lags, and the replica " +
			"is promoted",
			"the engines have warned of that at their start; what the replica had not got is lost, the books of what is left are " +
				"right, and the nodes go on"},

		{"TestRabbitKill", mqFile, mq, "RabbitMQ is killed, and started again 5 s later",
			"nothing is in doubt, and meanwhile at least half of what is asked for is handed over"},
		{"TestRabbitWipe", mqFile, mq, "RabbitMQ is restarted in good order, and then loses its disk",
			"nothing is in doubt, and meanwhile at least half of what is asked for is handed over"},
		{"TestRabbitAlarm", mqFile, mq, "RabbitMQ blocks all publishers (memory alarm) for 8 s",
			"/readyz says so and stays ready, and messages keep flowing"},
		{"TestRabbitHang", mqFile, mq, "RabbitMQ stands still (SIGSTOP) for 15 s",
			"messages keep flowing, no goroutines pile up, the nodes are connected again afterwards"},
		{"TestRabbitRedelivery", mqFile, mq, "all connections to RabbitMQ are reset 25 times with 200 hints on each, more often than " +
			"its delivery limit of 20",
			"nothing is lost or in doubt, and messages keep flowing"},

		{"TestRedisKill", rdFile, redis, "Redis is killed, and started again 6 s later", limited},
		{"TestRedisFlush", rdFile, redis, "Redis forgets everything (FLUSHALL), three times", limited},
		{"TestRedisHang", rdFile, redis, "Redis stands still (SIGSTOP) for 8 s", limited},
		{"TestRedisSlow", rdFile, redis, "every answer of Redis takes 500 ms longer", limited},
		{"TestRedisRewind", rdFile, redis, "Redis comes back with the state of 5 s ago, as a failover to a lagging replica leaves it",
			limited},

		{"TestNetworkNoPostgres", netFile, net, "one node is cut off from PostgreSQL for longer than a lease",
			"it claims nothing and says why, the other takes what it had, the store decides; nothing is sent twice but what was in " +
				"doubt"},
		{"TestNetworkNoRabbit", netFile, net, "one node is cut off from RabbitMQ", "messages keep flowing, none is in doubt"},
		{"TestNetworkNoRedis", netFile, net, "one node is cut off from Redis", limited},
		{"TestNetworkOneWay", netFile, net, "one node hears nothing from PostgreSQL, which hears the node, and then the other way " +
			"round, each for longer than a lease",
			"it claims nothing; the other waits for its open transactions, 5 s at most, and goes on; every request is answered"},
		{"TestNetworkNarrow", netFile, net, "one node has 64 kbit/s for each connection to everything",
			"every request is answered, memory stays bounded, the store decides, and messages flow at once when it is over"},
		{"TestNetworkAlone", netFile, net, "one node is cut off from everything but its providers and clients",
			"it claims nothing and refuses with 503; the other goes on; the rate holds"},

		{"TestNodeKill", nodeFile, node, "a node is killed with attempts on the wire and does not come back",
			"the other has what it had within the lease and 2 s, and marks what may be a second copy"},
		{"TestNodeFrozen", nodeFile, node, "a node stands still (SIGSTOP) for longer than a lease, with attempts on the wire",
			"the other takes over; what the late one writes changes nothing and is kept as a fact"},
		{"TestNodeClockOff", nodeFile, node, "the clock of a node is 10 s ahead",
			"it warns and goes by the store's clock: nothing goes before its time or is given up early"},
		{"TestNodeClockWrong", nodeFile, node, "the clock of a node is a minute behind",
			"it claims nothing and says why; the other does all the work"},
	}
}

// limited is what must come of every fault of Redis.
const limited = "the provider gets no more than the rate and the declared burst in any second, before, during and after; " +
	"nothing is lost or in doubt, and it never waits for Redis for long"
