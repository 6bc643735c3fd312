#!/bin/sh
# Send a template to everyone in customers.csv. Every step can be run alone.
set -eu
name=reminder-$(date +%Y%m%d-%H%M%S)

# Rows that cannot be reached are left out and written to $name.rejected.csv.
msgctl audience import customers.csv --name "$name"

# Each put makes a new version; a campaign keeps the version it was started with.
msgctl template put reminder --channel sms --file reminder.txt

# A draft: nothing is sent. --rate bounds how fast it will go.
msgctl campaign new "$name" --audience "$name" --template reminder --rate 20/s

# A dry run: people, segments, time, and what is wrong. Exit 9 if it cannot start.
msgctl campaign check "$name"

# Without --yes it asks for the campaign's name first.
msgctl campaign start "$name" --yes --wait
