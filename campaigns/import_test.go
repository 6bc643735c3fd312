package campaigns

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

func (b *bundle) importCSV(t testing.TB, file string) (store.Audience, Outcome) {
	t.Helper()
	a, out, err := b.Import(t.Context(), acme, Import{Name: "people", Source: strings.NewReader(file)})
	require.NoError(t, err)
	requireRows(t, a)
	return a, out
}

func requireRows(t testing.TB, a store.Audience) {
	t.Helper()
	require.Equal(t, a.Rows, a.People+sum(a.LeftOut), "rows = people + left out")
}

// rejected returns the list as "line,column,reason,value".
func (b *bundle) rejected(t testing.TB) []string {
	t.Helper()
	r, err := b.Rejected(t.Context(), acme, "people")
	require.NoError(t, err)
	defer r.Close()
	rows, err := csv.NewReader(r).ReadAll()
	require.NoError(t, err)
	require.Equal(t, []string{"line", "column", "reason", "detail", "value"}, rows[0])
	var out []string
	for _, c := range rows[1:] {
		require.NotEmpty(t, c[3], "a reason for people")
		out = append(out, strings.Join([]string{c[0], c[1], c[2], c[4]}, ","))
	}
	return out
}

func TestImport(t *testing.T) {
	b := setup(t)
	b.store.tenant.Region = "IN"
	b.store.suppressed = []store.Suppression{{To: "+919876543219", Reason: "opt_out"}}
	a, out := b.importCSV(t, `mobile,first_name,E-Mail
+91 98765 43210,Asha,asha@Example.com
98765 43211,Ravi,
98x4410021,Bad,
9876543210,Asha again,
,Nobody,
9876543219,Opted out,
9876543212,"=cmd|'/c calc'!A0",not an address
9876543213,only one
,Mail,mail@example.com
`)
	require.True(t, a.Ready)
	require.Equal(t, 9, a.Rows)
	require.Equal(t, 3, a.People)
	require.Equal(t, map[string]int{"invalid_phone": 1, "duplicate": 1, "no_address": 1, "suppressed": 1, "invalid_email": 1,
		"ragged": 1}, a.LeftOut)
	require.Equal(t, map[string]string{"phone": "mobile", "email": "E-Mail"}, out.Mapping)
	require.Equal(t, []string{"mobile", "first_name", "E-Mail"}, a.Columns)
	require.Equal(t, `line 4, mobile "98x4410021": use digits only: letters and extensions cannot be dialled`, out.First)
	require.Equal(t, "rejected/acme/people.csv", a.RejectFile)
	people := b.store.people["people"]
	require.Equal(t, store.Person{Seq: 1, Phone: "+919876543210", Email: "asha@example.com",
		Vars: json.RawMessage(`{"mobile":"+91 98765 43210","first_name":"Asha","E-Mail":"asha@Example.com"}`)}, people[0])
	require.Equal(t, "+919876543211", people[1].Phone)
	require.Equal(t, "mail@example.com", people[2].Email)
	require.Equal(t, []string{
		"4,mobile,invalid_phone,98x4410021",
		"5,mobile,duplicate,'+919876543210",
		"6,,no_address,",
		"7,mobile,suppressed,'+919876543219",
		"8,E-Mail,invalid_email,not an address",
		"9,,ragged,9876543213only one",
	}, b.rejected(t))
	info, err := os.Stat(filepath.Join(b.Dir, "rejected", "acme", "people.csv"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

func TestImportNDJSON(t *testing.T) {
	b := setup(t)
	file := `{"name":"Asha","Phone":"+91 98765 43210","tags":["a","b"],"n":1.50}

{"phone":919876543211}
{"whatsapp":"+919876543212","phone":"+919876543213"}
{"email":"a@example.com","phone":null,"channel":"EMAIL"}
[1]
{"phone":"+919876543214"} {}
{"phone":"+919876543215","phone":"x"}
{"phone":["+919876543215"]}
{"a":` + strings.Repeat("[", 10) + strings.Repeat("]", 10) + `,"phone":"+919876543216"}
{"phone":"+919876543217","x":"\u0000"}
{"phone":"+919876543218","x":"` + "\xff" + `"}
{"phone":"+919876543219"
{"phone":"+1"}
{"big":"` + strings.Repeat("x", 70_000) + `","phone":"+919876543219"}
` + strings.Repeat("y", 2<<20) + `
{"phone":"+919876543220","whatsapp":"+919876543229"}
{"phone":"+919876543221","x":"\"[[[[[[[[[[[["}`
	a, out, err := b.Import(t.Context(), acme, Import{Name: "people", Format: NDJSON, Source: strings.NewReader(file), Region: "IN"})
	require.NoError(t, err)
	requireRows(t, a)
	require.Equal(t, map[string]string{"phone": "Phone", "channel": "channel", "email": "email"}, out.Mapping)
	require.Equal(t, []string{"name", "Phone", "tags", "n"}, a.Columns)
	var phones []string
	for _, p := range b.store.people["people"] {
		phones = append(phones, p.Phone+p.Email)
	}
	require.Equal(t, []string{"+919876543210", "+919876543211", "+919876543213", "a@example.com", "+919876543220", "+919876543221"}, phones)
	require.Equal(t, `{"name":"Asha","Phone":"+91 98765 43210","tags":["a","b"],"n":1.50}`, string(b.store.people["people"][0].Vars))
	require.Equal(t, delivery.Email, b.store.people["people"][3].Channel)
	var got []string
	for _, line := range b.rejected(t) {
		f := strings.SplitN(line, ",", 4)
		got = append(got, strings.Join(f[:3], ","))
	}
	require.Equal(t, []string{"6,,invalid_json", "7,,invalid_json", "8,,duplicate_column", "9,phone,not_text", "10,,too_deep",
		"11,,control_character", "12,,invalid_encoding", "13,,invalid_json", "14,phone,invalid_phone", "15,,row_too_large",
		"16,,row_too_large"}, got)
}

// TestBadFiles is the table of bad inputs to an import: each is refused as a whole, or loses only its bad rows.
func TestBadFiles(t *testing.T) {
	tenThousand := "phone" + strings.Repeat(",c", 9999)
	for _, tc := range []struct {
		name, file string
		code       string // refused as a whole
		people     int
		leftOut    map[string]int
	}{
		{name: "UTF-16 with its mark", file: "\xff\xfep\x00h\x00o\x00n\x00e\x00", code: CodeEncoding},
		{name: "UTF-16 without", file: "p\x00h\x00o\x00n\x00e\x00\n\x00", code: CodeEncoding},
		{name: "UTF-8 with its mark", file: "\ufeffphone\n+12025550100\n", people: 1},
		{name: "NUL", file: "phone,n\n+12025550100,a\x00b\n+12025550101,c\n", people: 1, leftOut: map[string]int{"control_character": 1}},
		{name: "unbalanced quote", file: "phone,n\n+12025550100,\"a\n+12025550101,c\n+12025550102,d\n", people: 2,
			leftOut: map[string]int{"unbalanced_quote": 1}},
		{name: "a cell of 1 MB", file: "phone,n\n+12025550100," + strings.Repeat("x", 1_000_000) + "\n+12025550101,c\n", people: 1,
			leftOut: map[string]int{"cell_too_large": 1}},
		{name: "10,000 columns", file: tenThousand + "\n", code: CodeColumns},
		{name: "ragged rows", file: "phone,n\n+12025550100\n+12025550101,c,d\n+12025550102,e\n", people: 1, leftOut: map[string]int{"ragged": 2}},
		{name: "formula", file: "phone,n\n+12025550100,=cmd|' /C calc'!A0\n=1+1,b\n", people: 1, leftOut: map[string]int{"invalid_phone": 1}},
		{name: "duplicate header", file: "phone,name,name\n+12025550100,a,b\n", code: CodeDuplicate},
		{name: "empty header", file: "phone,\n+12025550100,a\n", code: CodeHeader},
		{name: "header only", file: "phone,name\n", code: CodeNoRows},
		{name: "CR-only line ends", file: "phone,n\r+12025550100,a\r+12025550101,b\r", people: 2},
		{name: "no address column", file: "colour,size\nred,1\n", code: CodeNoAddress},
		{name: "no header", file: "+12025550100,a\n", code: CodeNoAddress},
		{name: "Latin-1 in a cell", file: "phone,n\n+12025550100,Andr\xe9\n+12025550101,b\n", people: 1, leftOut: map[string]int{"invalid_encoding": 1}},
		{name: "unknown channel", file: "phone,channel\n+12025550100,fax\n+12025550101,SMS\n", people: 1, leftOut: map[string]int{"invalid_channel": 1}},
		{name: "a channel without its address", file: "phone,channel\n+12025550100,email\n", leftOut: map[string]int{"channel_without_address": 1}},
		{name: "a URL", file: "webhook\nhttps://example.com/a\nfile:///etc/passwd\n", people: 1, leftOut: map[string]int{"url_not_allowed": 1}},
		{name: "variables of one person too large", file: "phone,a,b\n+12025550100," + strings.Repeat("x", 40_000) + "," +
			strings.Repeat("y", 40_000) + "\n", leftOut: map[string]int{"row_too_large": 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := setup(t)
			a, _, err := b.Import(t.Context(), acme, Import{Name: "people", Source: strings.NewReader(tc.file)})
			if tc.code != "" {
				var file *FileError
				require.ErrorAs(t, err, &file)
				require.Equal(t, tc.code, file.Code)
				require.Empty(t, b.store.audiences, "nothing is stored")
				return
			}
			require.NoError(t, err)
			requireRows(t, a)
			require.Equal(t, tc.people, a.People)
			if tc.leftOut == nil {
				tc.leftOut = map[string]int{}
			}
			require.Equal(t, tc.leftOut, a.LeftOut)
		})
	}
}

func TestImportIsRefused(t *testing.T) {
	const file = "phone\n+12025550100\n"
	for _, tc := range []struct {
		name, code string
		in         Import
	}{
		{"path", CodeName, Import{Name: "../../etc/x"}},
		{"dots", CodeName, Import{Name: ".."}},
		{"separator", CodeName, Import{Name: "a/b"}},
		{"no name", CodeName, Import{}},
		{"long name", CodeName, Import{Name: strings.Repeat("a", 65)}},
		{"line end in a name", CodeName, Import{Name: "a\n"}},
		{"format", CodeFormat, Import{Name: "a", Format: "xlsx"}},
		{"region", CodeRegion, Import{Name: "a", Region: "XX"}},
		{"role", CodeUnknownColumn, Import{Name: "a", Columns: map[string]string{"fax": "phone"}}},
		{"column", CodeUnknownColumn, Import{Name: "a", Columns: map[string]string{"phone": "mobile"}}},
		{"one column twice", CodeUnknownColumn, Import{Name: "a", Columns: map[string]string{"phone": "phone", "email": "phone"}}},
		{"no address left", CodeNoAddress, Import{Name: "a", Columns: map[string]string{"phone": "-"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := setup(t)
			tc.in.Source = strings.NewReader(file)
			_, _, err := b.Import(t.Context(), acme, tc.in)
			var refused *FileError
			require.ErrorAs(t, err, &refused)
			require.Equal(t, tc.code, refused.Code)
			require.Empty(t, b.store.audiences)
		})
	}
	b := setup(t)
	_, _, err := b.Import(t.Context(), "../acme", Import{Name: "a", Source: strings.NewReader(file)})
	require.Error(t, err)
	_, err = b.Rejected(t.Context(), acme, "../people")
	require.ErrorIs(t, err, store.ErrNotFound)
	require.ErrorIs(t, b.DeleteAudience(t.Context(), acme, ".."), store.ErrNotFound)
}

func TestColumnsAreGuessedOrGiven(t *testing.T) {
	for _, tc := range []struct {
		header string
		given  map[string]string
		want   map[string]string
	}{
		{"Mobile,E-mail,Webhook,Channel", nil, map[string]string{"phone": "Mobile", "email": "E-mail", "url": "Webhook", "channel": "Channel"}},
		{"whatsapp,phone_number", nil, map[string]string{"phone": "phone_number"}},
		{"phone,mobile", map[string]string{"phone": "mobile"}, map[string]string{"phone": "mobile"}},
		{"phone,email", map[string]string{"email": "-"}, map[string]string{"phone": "phone"}},
		{"id,contact", map[string]string{"email": "contact"}, map[string]string{"email": "contact"}},
	} {
		t.Run(tc.header, func(t *testing.T) {
			r, err := newRanks(tc.given)
			require.NoError(t, err)
			columns := strings.Split(tc.header, ",")
			at, err := r.assign(columns)
			require.NoError(t, err)
			got := map[string]string{}
			for role, i := range at {
				if i >= 0 {
					got[roleNames[role]] = columns[i]
				}
			}
			require.Equal(t, tc.want, got)
		})
	}
}

func TestWhoIsLeftOutAsSuppressed(t *testing.T) {
	for _, tc := range []struct {
		name, row string
		list      []store.Suppression
		out       bool
	}{
		{"every channel", "+12025550100,,", []store.Suppression{{To: "+12025550100"}}, true},
		{"sms", "+12025550100,,", []store.Suppression{{Channel: delivery.SMS, To: "+12025550100"}}, true},
		{"whatsapp only", "+12025550100,,", []store.Suppression{{Channel: delivery.WhatsApp, To: "+12025550100"}}, false},
		{"whatsapp, which is asked for", "+12025550100,,whatsapp", []store.Suppression{{Channel: delivery.WhatsApp, To: "+12025550100"}}, true},
		{"sms, but whatsapp is asked for", "+12025550100,,whatsapp", []store.Suppression{{Channel: delivery.SMS, To: "+12025550100"}}, false},
		{"one of two", "+12025550100,a@example.com,", []store.Suppression{{To: "+12025550100"}}, false},
		{"both", "+12025550100,a@example.com,", []store.Suppression{{To: "+12025550100"}, {To: "a@example.com"}}, true},
		{"another", "+12025550100,,", []store.Suppression{{To: "+12025550101"}}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := setup(t)
			b.store.suppressed = tc.list
			a, _ := b.importCSV(t, "phone,email,channel\n"+tc.row+"\n")
			require.Equal(t, tc.out, a.LeftOut["suppressed"] == 1)
		})
	}
}

func TestSuppressionsAreReadPageByPage(t *testing.T) {
	f := newFake()
	for i := range 2500 { // pages end amid the entries of one address
		f.suppressed = append(f.suppressed, store.Suppression{To: phone(i), Channel: delivery.SMS},
			store.Suppression{To: phone(i), Channel: delivery.WhatsApp})
		if i%3 == 0 {
			f.suppressed = append(f.suppressed, store.Suppression{To: phone(i), Channel: delivery.Webhook})
		}
	}
	v, err := readSuppressions(t.Context(), f, acme)
	require.NoError(t, err)
	for i := range 2500 {
		for ch, want := range map[delivery.Channel]bool{delivery.SMS: true, delivery.WhatsApp: true, delivery.Webhook: i%3 == 0,
			delivery.Email: false} {
			hit, err := v.has(t.Context(), ch, phone(i))
			require.NoError(t, err)
			require.Equal(t, want, hit)
		}
	}
	require.Zero(t, f.lookups)
}

func TestALongSuppressionListIsNotKept(t *testing.T) {
	v, err := readSuppressions(t.Context(), &longList{fakeStore: newFake()}, acme)
	require.NoError(t, err)
	require.Nil(t, v.all)
	hit, err := v.has(t.Context(), delivery.SMS, phone(1))
	require.NoError(t, err)
	require.True(t, hit)
}

// longList suppresses everybody.
type longList struct {
	*fakeStore
	n int
}

func (l *longList) SuppressionList(_ context.Context, _ delivery.TenantID, _ string, limit int) ([]store.Suppression, error) {
	out := make([]store.Suppression, limit)
	for i := range out {
		out[i].To = phone(l.n)
		l.n++
	}
	return out, nil
}

func (l *longList) Suppressed(context.Context, delivery.TenantID, delivery.Channel, string) (store.Suppression, bool, error) {
	return store.Suppression{}, true, nil
}

func TestAnInterruptedImportCanBeRepeated(t *testing.T) {
	b := setup(t)
	var file strings.Builder
	file.WriteString("phone\n")
	for i := range 5000 {
		file.WriteString(phone(i) + "\n")
	}
	gone := errors.New("client is gone")
	_, _, err := b.Import(t.Context(), acme, Import{Name: "people",
		Source: io.MultiReader(strings.NewReader(file.String()[:30_000]), iotest.ErrReader(gone))})
	require.ErrorIs(t, err, gone)
	require.False(t, b.store.audiences["people"].Ready)

	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	b.store.fault = func(op string, after bool) error {
		if calls++; calls == 4 {
			cancel()
		}
		return nil
	}
	_, _, err = b.Import(ctx, acme, Import{Name: "people", Source: strings.NewReader(file.String())})
	require.ErrorIs(t, err, context.Canceled)
	require.False(t, b.store.audiences["people"].Ready)

	b.store.fault = func(string, bool) error { return store.ErrUnavailable }
	_, _, err = b.Import(t.Context(), acme, Import{Name: "people", Source: strings.NewReader(file.String())})
	require.ErrorIs(t, err, store.ErrUnavailable)

	b.store.fault = nil
	a, _ := b.importCSV(t, file.String())
	require.Equal(t, 5000, a.People)
	require.Len(t, b.store.people["people"], 5000)
	_, _, err = b.Import(t.Context(), acme, Import{Name: "people", Source: strings.NewReader(file.String())})
	require.ErrorIs(t, err, store.ErrExists)
	_, err = b.Rejected(t.Context(), acme, "people")
	require.ErrorIs(t, err, store.ErrNotFound, "no row was left out")
}

func TestAnAudienceWithoutPeopleIsReplaced(t *testing.T) {
	b := setup(t)
	a, out := b.importCSV(t, "phone\n9876543210\n")
	require.Zero(t, a.People)
	require.Contains(t, out.First, "start with + and the country code")
	a, _, err := b.Import(t.Context(), acme, Import{Name: "people", Region: "IN", Source: strings.NewReader("phone\n9876543210\n")})
	require.NoError(t, err)
	require.Equal(t, 1, a.People)
}

func TestTwoImportsToOneNameAtOnce(t *testing.T) {
	b := setup(t)
	pr, pw := io.Pipe()
	ended := make(chan error)
	go func() {
		_, _, err := b.Import(t.Context(), acme, Import{Name: "people", Source: pr})
		ended <- err
	}()
	_, err := pw.Write([]byte("phone\n")) // taken: the first import has begun
	require.NoError(t, err)
	_, _, err = b.Import(t.Context(), acme, Import{Name: "people", Source: strings.NewReader("phone\n+12025550100\n")})
	require.ErrorIs(t, err, ErrImporting)
	require.ErrorIs(t, b.DeleteAudience(t.Context(), acme, "people"), ErrImporting)
	_, err = pw.Write([]byte("+12025550101\n"))
	require.NoError(t, err)
	require.NoError(t, pw.Close())
	require.NoError(t, <-ended)
	require.Equal(t, "+12025550101", b.store.people["people"][0].Phone)
}

func TestTheListOfRejectedRowsIsBounded(t *testing.T) {
	w, err := newRejectWriter(filepath.Join(t.TempDir(), "a", "b.csv"))
	require.NoError(t, err)
	require.Equal(t, 1_000_000, w.max)
	w.max = 3
	for i := range 10 {
		require.NoError(t, w.add(&rejection{line: i + 2, reason: reasonRagged, detail: "1 cell, the header has 2"}))
	}
	require.NoError(t, w.close())
	require.NoError(t, w.close())
	text, err := os.ReadFile(w.path)
	require.NoError(t, err)
	require.Equal(t, 5, bytes.Count(text, []byte("\n")))
	require.Contains(t, string(text), "7 more rows")
	require.Equal(t, map[string]int{reasonRagged: 10}, w.counts)
}

func TestRejectedValuesAreNoFormulas(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "plain": "plain", "=1+1": "'=1+1", "+1": "'+1", "-1": "'-1", "@SUM(A1)": "'@SUM(A1)", "\tx": "' x", "\rx": "' x",
		"＝1": "'＝1", "＋1": "'＋1", "－1": "'－1", "＠x": "'＠x", "  =1": "'  =1", "a\x1b[31mb": "a [31mb", "a\nb": "a b",
		"\x00=1": "' =1", "bad\xff": "bad\ufffd", "\u202eabc": " abc", "1=1": "1=1",
	} {
		require.Equal(t, want, neutral(in), "%q", in)
	}
}

func TestDeleteAudienceRemovesTheRejectedRows(t *testing.T) {
	b := setup(t)
	b.importCSV(t, "phone\n+12025550100\nx\n")
	require.Len(t, b.rejected(t), 1)
	require.NoError(t, b.DeleteAudience(t.Context(), acme, "people"))
	_, err := b.Rejected(t.Context(), acme, "people")
	require.ErrorIs(t, err, store.ErrNotFound)
	files, err := os.ReadDir(filepath.Join(b.Dir, "rejected", "acme"))
	require.NoError(t, err)
	require.Empty(t, files)
	require.ErrorIs(t, b.DeleteAudience(t.Context(), acme, "people"), store.ErrNotFound)
}

func FuzzNDJSON(f *testing.F) {
	f.Add([]byte(`{"phone":"+12025550100","a":[{"b":1}]}` + "\n\n" + `{"email":"a@b.co"}`))
	f.Add([]byte(`{"phone":1e9,"channel":"sms"}` + "\r\n[]\n{"))
	f.Add([]byte("\ufeff{\"url\":\"https://example.com/\\u00e9\",\"a\":1,\"a\":2}\n{\"\":0}"))
	names, err := newRanks(nil)
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := newNDJSON(bytes.NewReader(in))
		if err != nil {
			var file *FileError
			require.ErrorAs(t, err, &file)
			return
		}
		c := &converter{ranks: names, region: "IN", mapping: map[string]string{}, suppressed: &suppressions{all: map[string]uint8{}}}
		for last := 0; ; {
			row, err := r.next()
			if err == io.EOF {
				return
			}
			require.NoError(t, err)
			require.Greater(t, row.line, last)
			last = row.line
			p, _, bad, err := c.person(t.Context(), row)
			require.NoError(t, err)
			if bad != nil {
				require.NotEmpty(t, bad.reason)
				require.NotEmpty(t, bad.detail)
				continue
			}
			require.NotEmpty(t, firstAddress(p))
			var vars map[string]any
			require.NoError(t, json.Unmarshal(p.Vars, &vars))
			var d delivery.Draft
			require.NoError(t, json.Unmarshal(draft(draftHead(store.Leg{Template: "hi", Version: 1}), p.Vars), &d))
			if len(vars) > 0 {
				require.Equal(t, vars, d.Vars)
			}
		}
	})
}

// nullStore takes people without keeping them.
type nullStore struct{ *fakeStore }

func (nullStore) AddPeople(_ context.Context, _ delivery.TenantID, _ string, people []store.Person) ([]bool, error) {
	added := make([]bool, len(people))
	for i := range added {
		added[i] = true
	}
	return added, nil
}

func BenchmarkImport(b *testing.B) {
	const rows = 100_000
	for _, plus := range []string{"+91", ""} {
		var file bytes.Buffer
		file.WriteString("mobile,first_name,city,order\n")
		for i := range rows {
			fmt.Fprintf(&file, "%s%d,Name %d,Mumbai,%d\n", plus, 9800000000+i, i, i*7)
		}
		b.Run("phone "+plus, func(b *testing.B) {
			s := setup(b)
			s.Store = nullStore{s.store}
			for b.Loop() {
				s.store.audiences = map[string]*store.Audience{}
				a, _, err := s.Import(b.Context(), acme, Import{Name: "a", Region: "IN", Source: bytes.NewReader(file.Bytes())})
				if err != nil || a.People != rows {
					b.Fatal(err, a.LeftOut)
				}
			}
			b.ReportMetric(float64(b.N)*rows/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
