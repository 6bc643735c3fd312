package main

import (
	"context"
	"strconv"
	"strings"
)

// channel is what is sent on one, and what the plainest program reaches on it.
type channel struct {
	name     string
	content  string // members of a message
	receipts bool   // a message is done with its receipt
	to       func(at string, person int) string
	key      func(person int) string // the recipient as the simulator's ledger has it
	raw      func(ctx context.Context, sim simulated, n int) (perSecond float64, err error)
	aim      aim
}

// The bodies.
var (
	smsText  = "Your parcel arrives today between 2 and 4 pm. Thank you. ACME"[:60]
	chatText = strings.Repeat("Your order is on its way to you now. ", 6)[:200]
	mailText = strings.Repeat("Prices fell again this week; here is what changed.\n", 8)
	mailHTML = "<html><body>" + strings.Repeat(mailLine, 17) + "</body></html>"
	mailLine = "<p>Prices fell again <b>this week</b>; here is what changed.</p>\n"
	hookData = `{"order":"A-20261015-000123","note":"` + strings.Repeat("paid in full; ", 39) + `"}`
)

func channels() []channel {
	// Below +1 202 555 01NN, the numbers for which the simulator does something else.
	phone := func(person int) string { return "1202" + strconv.Itoa(2_000_000+person) }
	plus := func(_ string, person int) string { return "+" + phone(person) }
	mailbox := func(person int) string { return "person" + strconv.Itoa(person) + "@example.test" }
	hook := func(person int) string { return "/sim/hook/bench/" + strconv.Itoa(person) }
	return []channel{
		{
			name: "sms", content: `"text":` + strconv.Quote(smsText), receipts: true,
			to: plus, key: phone, raw: rawSMPP,
			aim: aim{rate: 8_000, cpu: 15, ratio: 0.4, p99: 50, rss: 150},
		},
		{
			name: "whatsapp", content: `"text":` + strconv.Quote(chatText), receipts: true,
			to: plus, key: phone, raw: rawWhatsApp,
			aim: aim{rate: 4_000, cpu: 25, ratio: 0.4, p99: 50, rss: 150},
		},
		{
			name: "email",
			content: `"subject":"Your weekly digest is here","text":` + strconv.Quote(mailText) +
				`,"html":` + strconv.Quote(mailHTML),
			to: func(_ string, person int) string { return mailbox(person) }, key: mailbox, raw: rawSMTP,
			aim: aim{rate: 6_000, cpu: 15, ratio: 0.4, p99: 50, rss: 150},
		},
		{
			name: "webhook", content: `"event":"order.paid","data":` + hookData,
			to: func(at string, person int) string { return at + hook(person) }, key: hook, raw: rawHook,
			aim: aim{rate: 4_000, cpu: 25, ratio: 0.4, p99: 50, rss: 150},
		},
	}
}
