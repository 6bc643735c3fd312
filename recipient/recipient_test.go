package recipient_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/recipient"
)

type row struct {
	raw, region string
	want        string // empty = refused
	code        string
	rule        string // part of the rule
}

func check(t *testing.T, ch delivery.Channel, rows map[string]row) {
	t.Helper()
	for name, r := range rows {
		t.Run(name, func(t *testing.T) {
			got, err := recipient.Normalize(ch, r.raw, r.region)
			if r.want != "" {
				require.NoError(t, err)
				require.Equal(t, r.want, got)
				return
			}
			var bad *recipient.Invalid
			require.ErrorAs(t, err, &bad, "got %q", got)
			require.Equal(t, r.code, bad.Code)
			require.Contains(t, bad.Rule, r.rule)
			require.Empty(t, got)
		})
	}
}

func TestPhone(t *testing.T) {
	const code = recipient.CodePhone
	rows := map[string]row{
		"e164":                      {raw: "+12025550100", want: "+12025550100"},
		"fiction area":              {raw: "+15555550123", want: "+15555550123"},
		"india":                     {raw: "+919812345678", want: "+919812345678"},
		"germany":                   {raw: "+4915123456789", want: "+4915123456789"},
		"italy keeps its zero":      {raw: "+390612345678", want: "+390612345678"},
		"niue, seven digits":        {raw: "+6834002", want: "+6834002"},
		"spaces, dashes, brackets":  {raw: " +1 (202) 555-0100 ", want: "+12025550100"},
		"dots, no-break space":      {raw: "+1.202.555\u00a00100", want: "+12025550100"},
		"national":                  {raw: "098123 45678", region: "IN", want: "+919812345678"},
		"national, lower region":    {raw: "0151 23456789", region: "de", want: "+4915123456789"},
		"national, us":              {raw: "(202) 555-0100", region: "US", want: "+12025550100"},
		"region does not matter":    {raw: "+12025550100", region: "IN", want: "+12025550100"},
		"empty":                     {code: code, rule: "start with +"},
		"only a plus":               {raw: "+", code: code, rule: "start with +"},
		"short":                     {raw: "+1", code: code, rule: "too short"},
		"nanp without area":         {raw: "+15550100", code: code, rule: "does not fit"},
		"thirty digits":             {raw: "+1555" + strings.Repeat("5", 30), code: code, rule: "too long"},
		"a megabyte":                {raw: "+" + strings.Repeat("1", 1<<20), code: code, rule: "at most 15"},
		"international prefix":      {raw: "004915123456789", code: code, rule: "start with + and the country code"},
		"international, region":     {raw: "004915123456789", region: "DE", code: code, rule: "start with + and the country"},
		"plus 00":                   {raw: "+004915123456789", code: code, rule: "not with 00"},
		"plus 0":                    {raw: "+04915123456789", code: code, rule: "no country code begins with 0"},
		"no region":                 {raw: "2025550100", code: code, rule: "start with +"},
		"unknown code":              {raw: "+99912345678", code: code, rule: "does not exist"},
		"trunk zero":                {raw: "+49015123456789", code: code, rule: "leave out the 0"},
		"trunk zero in brackets":    {raw: "+49 (0) 151 23456789", code: code, rule: "leave out the (0)"},
		"arabic-indic digits":       {raw: "+١٢٠٢٥٥٥٠١٠٠", code: code, rule: "0-9"},
		"full-width digits":         {raw: "+１２０２５５５０１００", code: code, rule: "0-9"},
		"letters":                   {raw: "+1202CALLNOW", code: code, rule: "letters"},
		"extension":                 {raw: "+12025550100 ext 5", code: code, rule: "extensions"},
		"extension by comma":        {raw: "+12025550100,5", code: code, rule: "use only"},
		"two":                       {raw: "+12025550100+1", code: code, rule: "use only"},
		"newline":                   {raw: "+12025550100\n", code: code, rule: "use only"},
		"nul":                       {raw: "+12025550100\x00", code: code, rule: "use only"},
		"bad utf-8":                 {raw: "+12025550100\xff", code: code, rule: "UTF-8"},
		"national, too short":       {raw: "555", region: "US", code: code, rule: "does not fit"},
		"national, without area":    {raw: "555-0100", region: "US", code: code, rule: "does not fit"},
		"national, one digit":       {raw: "5", region: "US", code: code, rule: "start with +"},
		"national, thirty digits":   {raw: strings.Repeat("2", 30), region: "US", code: code, rule: "too long"},
		"unknown region":            {raw: "2025550100", region: "XX", code: recipient.CodeRegion, rule: "two-letter"},
		"region of a hundred bytes": {raw: "2025550100", region: strings.Repeat("U", 100), code: recipient.CodeRegion},
	}
	check(t, delivery.SMS, rows)
	check(t, delivery.WhatsApp, rows)
}

func TestEmail(t *testing.T) {
	const code = recipient.CodeEmail
	l63 := strings.Repeat("a", 63)
	check(t, delivery.Email, map[string]row{
		"plain":               {raw: "asha@example.com", want: "asha@example.com"},
		"domain lower-cased":  {raw: "Asha.Rao+x@Mail.EXAMPLE.com", want: "Asha.Rao+x@mail.example.com"},
		"spaces around":       {raw: " a@example.com\t", want: "a@example.com"},
		"all atext":           {raw: "!#$%&'*+-/=?^_`{|}~@example.com", want: "!#$%&'*+-/=?^_`{|}~@example.com"},
		"idn":                 {raw: "a@BÜCHER.example", want: "a@xn--bcher-kva.example"},
		"a-label":             {raw: "a@XN--bcher-kva.example", want: "a@xn--bcher-kva.example"},
		"hyphens 3 and 4":     {raw: "a@r3--x.example", want: "a@r3--x.example"},
		"simulator":           {raw: "delivered+x@sim.test", want: "delivered+x@sim.test"},
		"local of 64":         {raw: l63 + "a@example.com", want: l63 + "a@example.com"},
		"local of 65":         {raw: l63 + "aa@example.com", code: code, rule: "64"},
		"local of 255":        {raw: strings.Repeat("a", 255) + "@example.com", code: code, rule: "64"},
		"no dot":              {raw: "a@b", code: code, rule: "needs a dot"},
		"empty":               {code: code, rule: "name@example.com"},
		"no at":               {raw: "asha", code: code, rule: "name@example.com"},
		"no local":            {raw: "@example.com", code: code, rule: "before @ is missing"},
		"no domain":           {raw: "a@", code: code, rule: "domain is missing"},
		"two ats":             {raw: "a@b@example.com", code: code, rule: "one @"},
		"smuggled command":    {raw: "\"a\r\nRCPT TO:<x>\"@d.example", code: code, rule: "quoted"},
		"line break":          {raw: "a\r\nb@example.com", code: code, rule: "control"},
		"line break at end":   {raw: "a@example.com\r\n", code: code, rule: "control"},
		"nul in domain":       {raw: "a@exa\x00mple.com", code: code, rule: "control"},
		"literal":             {raw: "a@[127.0.0.1]", code: code, rule: "literals"},
		"ipv4":                {raw: "a@127.0.0.1", code: code, rule: "numbers"},
		"display name":        {raw: "Asha <a@example.com>", code: code, rule: "bare address"},
		"angle brackets":      {raw: "<a@example.com>", code: code, rule: "bare address"},
		"two addresses":       {raw: "a@example.com,b@example.com", code: code, rule: "one @"},
		"comment":             {raw: "a(x)@example.com", code: code, rule: "not allowed"},
		"non-ASCII local":     {raw: "ü@example.com", code: code, rule: "ASCII"},
		"dot first":           {raw: ".a@example.com", code: code, rule: "dot"},
		"dot last":            {raw: "a.@example.com", code: code, rule: "dot"},
		"two dots":            {raw: "a..b@example.com", code: code, rule: "dot"},
		"domain: dot first":   {raw: "a@.example.com", code: code, rule: "empty label"},
		"domain: dot last":    {raw: "a@example.com.", code: code, rule: "empty label"},
		"domain: underscore":  {raw: "a@ex_ample.com", code: code, rule: "letters, digits"},
		"domain: space":       {raw: "a@exa mple.com", code: code, rule: "letters, digits"},
		"domain: hyphen":      {raw: "a@-example.com", code: code, rule: "begins and ends"},
		"domain: label of 64": {raw: "a@" + l63 + "a.com", code: code, rule: "63"},
		"domain of 254":       {raw: "a@" + strings.Repeat("a.", 125) + "com.", code: code, rule: "too long"},
		"mailbox of 255":      {raw: "a@" + strings.Repeat("a.", 125) + "com", code: code, rule: "too long"},
		"mailbox of 254":      {raw: "a@" + strings.Repeat("a.", 125) + "io", want: "a@" + strings.Repeat("a.", 125) + "io"},
		"domain: bad idn":     {raw: "a@xn--a.example", code: code, rule: "internationalised"},
		"domain: bidi":        {raw: "a@a\u202eb.example", code: code, rule: "internationalised"},
		"domain: bad utf-8":   {raw: "a@0.00\x81", code: code, rule: "internationalised"},
		"megabyte":            {raw: strings.Repeat("a", 1<<20) + "@example.com", code: code, rule: "too long"},
	})
}

func TestURL(t *testing.T) {
	const code = recipient.CodeURL
	check(t, delivery.Webhook, map[string]row{
		"https":           {raw: "https://hooks.example.com/a?b=c", want: "https://hooks.example.com/a?b=c"},
		"http, port":      {raw: "http://127.0.0.1:8080/sim/hook/200", want: "http://127.0.0.1:8080/sim/hook/200"},
		"lower-cased":     {raw: "HTTPS://Hooks.Example.COM/Path", want: "https://hooks.example.com/Path"},
		"idn":             {raw: "https://bücher.example/ü", want: "https://xn--bcher-kva.example/%C3%BC"},
		"fragment":        {raw: "https://a.example/x#y", want: "https://a.example/x"},
		"final dot":       {raw: "https://a.example./x", want: "https://a.example/x"},
		"ipv6":            {raw: "https://[2001:DB8::1]:8443/", want: "https://[2001:db8::1]:8443/"},
		"localhost":       {raw: "http://localhost:9/", want: "http://localhost:9/"},
		"empty":           {code: code, rule: "scheme"},
		"relative":        {raw: "/hook", code: code, rule: "scheme"},
		"no scheme":       {raw: "example.com/hook", code: code, rule: "scheme"},
		"file":            {raw: "file:///etc/passwd", code: code, rule: "scheme"},
		"gopher":          {raw: "gopher://a.example/", code: code, rule: "scheme"},
		"javascript":      {raw: "javascript:alert(1)", code: code, rule: "scheme"},
		"opaque":          {raw: "http:a.example", code: code, rule: "host is missing"},
		"no host":         {raw: "https:///x", code: code, rule: "host is missing"},
		"only a port":     {raw: "https://:443/x", code: code, rule: "host is missing"},
		"user":            {raw: "https://u:p@a.example/", code: code, rule: "passwords"},
		"empty user":      {raw: "https://@a.example/", code: code, rule: "passwords"},
		"hex address":     {raw: "http://0x7f.1/", code: code, rule: "four decimal"},
		"hex integer":     {raw: "http://0x7f000001/", code: code, rule: "four decimal"},
		"integer address": {raw: "http://2130706433/", code: code, rule: "four decimal"},
		"octal address":   {raw: "http://0177.0.0.1/", code: code, rule: "four decimal"},
		"short address":   {raw: "http://127.1/", code: code, rule: "four decimal"},
		"zone":            {raw: "http://[fe80::1%25eth0]/", code: code, rule: "IPv6"},
		"bad ipv6":        {raw: "http://[::g]/", code: code},
		"ipv4 in []":      {raw: "http://[127.0.0.1]/", code: code},
		"port 0":          {raw: "http://a.example:0/", code: code, rule: "port"},
		"port 65536":      {raw: "http://a.example:65536/", code: code, rule: "port"},
		"port name":       {raw: "http://a.example:http/", code: code},
		"space":           {raw: "https://a.example/a b", code: code, rule: "spaces"},
		"line break":      {raw: "https://a.example/\r\nHost: x", code: code, rule: "control"},
		"backslash":       {raw: `https://a.example\@b.example/`, code: code, rule: "backslashes"},
		"bad escape":      {raw: "https://a.example/%zz", code: code, rule: "not a URL"},
		"too long":        {raw: "https://a.example/" + strings.Repeat("a", 2048), code: code, rule: "too long"},
		"grows too long":  {raw: "https://a.example/" + strings.Repeat("ü", 900), code: code, rule: "too long"},
	})
}

func TestUnknownChannel(t *testing.T) {
	_, err := recipient.Normalize(0, "x", "")
	var bad *recipient.Invalid
	require.ErrorAs(t, err, &bad)
	require.Equal(t, recipient.CodeChannel, bad.Code)
}

// The rule must not repeat what it refuses: it is logged and shown.
func TestRulesDoNotRepeatTheRecipient(t *testing.T) {
	for ch, raw := range map[delivery.Channel]string{
		delivery.SMS: "+7secret7", delivery.Email: "se cret@example.com", delivery.Webhook: "https://u:secret@a.example/%zz",
	} {
		_, err := recipient.Normalize(ch, raw, "")
		require.Error(t, err)
		require.NotContains(t, err.Error(), "cret")
	}
}

// fixedPoint checks that what Normalize gives out, it takes in unchanged.
func fixedPoint(t *testing.T, ch delivery.Channel, raw, region string) {
	out, err := recipient.Normalize(ch, raw, region)
	if err != nil {
		var bad *recipient.Invalid
		if !errors.As(err, &bad) || bad.Code == "" || bad.Rule == "" {
			t.Fatalf("error without code and rule: %v", err)
		}
		return
	}
	again, err := recipient.Normalize(ch, out, region)
	if err != nil || again != out {
		t.Fatalf("%q became %q, and that became %q, %v", raw, out, again, err)
	}
	if i := strings.IndexFunc(out, func(r rune) bool { return r <= ' ' || r == 0x7f }); i >= 0 {
		t.Fatalf("%q became %q, with a control character or a space", raw, out)
	}
}

func FuzzPhone(f *testing.F) {
	for _, s := range []string{"+12025550100", "098123 45678", "0049 151", "+49 (0) 1", "011 49 151 23456789", "١٢٣"} {
		f.Add(s, "US")
		f.Add(s, "IN")
		f.Add(s, "")
	}
	f.Fuzz(func(t *testing.T, raw, region string) { fixedPoint(t, delivery.SMS, raw, region) })
}

func FuzzEmail(f *testing.F) {
	for _, s := range []string{"a@example.com", "a@BÜCHER.example", "\"a\"@b.example", "a@[1]", "a@xn--a.example", "a@ß。example"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) { fixedPoint(t, delivery.Email, raw, "") })
}

func FuzzURL(f *testing.F) {
	for _, s := range []string{"https://a.example/x?y=z#q", "http://[::1]:1/", "http://0x7f.1", "http://a%2eb/", "https://ü.example/ü?ü", "http://x//..%2f"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) { fixedPoint(t, delivery.Webhook, raw, "") })
}

func BenchmarkPhone(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_, _ = recipient.Phone("+919812345678", "")
	}
}

func BenchmarkEmail(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_, _ = recipient.Email("asha.rao@mail.example.com")
	}
}

func BenchmarkURL(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_, _ = recipient.URL("https://hooks.example.com/a/b?c=d")
	}
}
