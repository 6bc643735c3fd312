#!/bin/sh
# Makes the secrets of cluster.yaml: random passwords, the engines' configuration with them, and the master key. Nothing
# that is there already is changed, so it can run again. Usage: secrets.sh [DIRECTORY]
set -eu
umask 077
dir=${1:-$(dirname "$0")/secrets}
mkdir -p "$dir"
chmod 700 "$dir"

# The containers' users differ from the host's, so the files are readable by all; the directory keeps others out.
put() {
	if [ ! -s "$dir/$1" ]; then
		cat > "$dir/.new"
		chmod 644 "$dir/.new"
		mv "$dir/.new" "$dir/$1"
		echo "made $dir/$1"
	fi
}
random() { head -c 24 /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }

for name in postgres_password owner_password app_password; do random | put "$name"; done
printf 'postgres:5432:msgctl:msgctl_owner:%s\n' "$(cat "$dir/owner_password")" | put owner.pgpass

if [ ! -s "$dir/engine.yaml" ]; then
	for name in rabbitmq.conf redis.conf; do
		if [ -s "$dir/$name" ]; then
			echo "$dir/engine.yaml is missing, but $name is there, and its password stands only in both." >&2
			echo "Restore engine.yaml, or remove $name to make new passwords." >&2
			exit 1
		fi
	done
	broker=$(random) limits=$(random)
	put rabbitmq.conf <<-END
		# Hints only: the store knows all work. The broker stops taking more before it runs out of memory or disk.
		default_user = msgctl
		default_pass = $broker
		loopback_users = none
		vm_memory_high_watermark.relative = 0.4
		disk_free_limit.absolute = 1GB
	END
	put redis.conf <<-END
		# Permits only. A full server must refuse, not forget: a forgotten permit is a message too many for a provider.
		requirepass $limits
		maxmemory 128mb
		maxmemory-policy noeviction
		save ""
		appendonly no
	END
	put engine.yaml <<-END
		# A password that is changed here must be changed in its server too.
		store: postgres://msgctl:$(cat "$dir/app_password")@postgres:5432/msgctl?sslmode=disable
		broker: amqp://msgctl:$broker@rabbitmq:5672/
		limits: redis://:$limits@redis:6379/0
		drain_timeout: 30s
		log:
		  level: info
		  format: json
	END
fi

# The format that the engine reads: 32 random bytes. Keep a copy elsewhere; without it no stored secret opens.
printf 'msgctl-master-key-1 %s\n' "$(head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\n')" | put master.key
