#!/usr/bin/env bash
# The main job, on one machine: an engine and a simulator of the providers, 10,000 people from a CSV file with bad rows
# among them, one campaign over SMS, WhatsApp, e-mail and webhook, receipts, a report whose parts add up.
set -euo pipefail

msgctl=${MSGCTL:-bin/msgctl}
people=${PEOPLE:-10000}
work=$(mktemp -d)
unset MSGCTL_URL MSGCTL_API_KEY MSGCTL_CONTEXT MSGCTL_OUTPUT
export XDG_CONFIG_HOME=$work/config
dev=
finish() {
  code=$?
  if [ -n "$dev" ]; then
    kill "$dev" 2>/dev/null || true
    wait "$dev" 2>/dev/null || true
  fi
  if [ "$code" -ne 0 ] && [ -s "$work/dev.log" ]; then
    cat "$work/dev.log" >&2
  fi
  rm -rf "$work"
  exit "$code"
}
trap finish EXIT

bold='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\033[1m' plain=$'\033[0m'; fi
say() { printf '\n%s$ %s%s\n' "$bold" "${*/#$msgctl/msgctl}" "$plain"; }
step() { say "$@"; "$@"; }

"$msgctl" dev --port 0 --dir "$work/data" >"$work/dev.log" 2>&1 &
dev=$!
for _ in $(seq 200); do
  grep -q 'selected' "$work/dev.log" && break
  kill -0 "$dev" 2>/dev/null || { echo "msgctl dev did not start" >&2; exit 1; }
  sleep 0.05
done
cat "$work/dev.log"
sim=$(sed -n 's/.*hooks \(http:[^ ]*\).*/\1/p' "$work/dev.log")

# People: a quarter on each channel. Now and then somebody whose number tells the simulator to misbehave (no such
# subscriber, two temporary errors, receipts twice or out of order), somebody who is in the file twice, and a bad row.
csv=$work/customers.csv
awk -v n="$people" -v sim="$sim" 'BEGIN {
  print "first_name,mobile,email,hook,channel"
  split("Asha,Bruno,Chen,Dana,Emeka,Farida,Goran,Hana", name, ",")
  split("sms,whatsapp,email,webhook", channel, ",")
  split("10,20,22,31,32", odd, ",")
  for (i = 0; i < n; i++) {
    who = name[i % 8 + 1]; ch = channel[i % 4 + 1]
    phone = sprintf("+1202%07d", 6000000 + i); mail = sprintf("person%d@sim.test", i); hook = sim "/sim/hook/200/" i
    if (i % 500 == 0 || i % 500 == 1) phone = sprintf("+1%03d55501%02d", 201 + int(i / 500) % 90, odd[int(i / 500) % 5 + 1])
    if (i % 500 == 2) mail = "hardbounce+" i "@sim.test"
    if (i % 1000 == 400) phone = "98x4410021"
    if (i % 1000 == 600) mail = "not an address"
    if (ch == "sms" || ch == "whatsapp") { mail = ""; hook = "" } else if (ch == "email") { phone = ""; hook = "" } else { phone = ""; mail = "" }
    if (i % 1000 == 402) mail = "not an address"
    print who "," phone "," mail "," hook "," ch
    if (i % 800 == 7) print who "," phone "," mail "," hook "," ch
  }
}' >"$csv"

step "$msgctl" audience import "$csv" --name customers --url-col hook
step "$msgctl" template put diwali_sms --channel sms --text 'Happy Diwali, {{ first_name }}! 20 % off until Sunday.'
step "$msgctl" template put diwali_whatsapp --channel whatsapp --text 'Happy Diwali, {{ first_name }}! 20 % off until Sunday.'
step "$msgctl" template put diwali_mail --channel email --subject 'Happy Diwali, {{ first_name }}' \
  --html '<p>Dear {{ first_name }},</p><p>20 % off until <b>Sunday</b>.</p>'
step "$msgctl" template put diwali_hook --channel webhook --event campaign.greeting --data '{"name": {{ first_name }}, "offer": "20 % off"}'
step "$msgctl" campaign new diwali --audience customers \
  --template diwali_sms --template diwali_whatsapp --template diwali_mail --template diwali_hook
step "$msgctl" campaign check diwali
say "$msgctl" campaign start diwali --yes --wait
"$msgctl" campaign start diwali --yes --wait >/dev/null # the report comes below
step "$msgctl" audit verify
step "$msgctl" campaign report diwali
