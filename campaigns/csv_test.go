package campaigns

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

// readCSV returns the rows as "line:cell|cell", refused ones as "line!reason".
func readCSV(src io.Reader) (columns, rows []string, err error) {
	r, err := newCSV(src)
	if err != nil {
		return nil, nil, err
	}
	for {
		in, err := r.next()
		if err == io.EOF {
			return r.columns, rows, nil
		}
		if err != nil {
			return r.columns, rows, err
		}
		if in.bad != nil {
			rows = append(rows, fmt.Sprintf("%d!%s", in.line, in.bad.reason))
			continue
		}
		rows = append(rows, fmt.Sprintf("%d:%s", in.line, strings.Join(in.cells, "|")))
	}
}

func TestCSVRows(t *testing.T) {
	for _, tc := range []struct {
		name string
		in   string
		want []string
	}{
		{"plain", "a,b\n1,2\n3,4\n", []string{"2:1|2", "3:3|4"}},
		{"no end of line at the end", "a,b\n1,2", []string{"2:1|2"}},
		{"CRLF", "a,b\r\n1,2\r\n3,4\r\n", []string{"2:1|2", "3:3|4"}},
		{"CR only", "a,b\r1,2\r3,4\r", []string{"2:1|2", "3:3|4"}},
		{"byte order mark", "\ufeffa,b\n1,2", []string{"2:1|2"}},
		{"quotes", "a,b\n\"x,\"\"y\"\"\",2\n", []string{"2:x,\"y\"|2"}},
		{"line end in quotes", "a,b\n\"x\ny\",2\n3,4\n", []string{"2:x\ny|2", "4:3|4"}},
		{"CRLF in quotes", "a,b\r\n\"x\r\ny\",2\r\n3,4\r\n", []string{"2:x\r\ny|2", "4:3|4"}},
		{"spaces around quotes", "a,b\n  \"x\" , \"y\"\n", []string{"2:x|y"}},
		{"quote inside a cell", "a,b\n5\" pipe,2\n", []string{"2:5\" pipe|2"}},
		{"blank lines", "\n\na,b\n\n1,2\n\n\n3,4\n\n", []string{"5:1|2", "8:3|4"}},
		{"a spreadsheet's empty rows", "a,b\n,\n1,\n,,,\n", []string{"3:1|"}},
		{"ragged", "a,b\n1\n1,2,3\n1,2\n", []string{"2!ragged", "3!ragged", "4:1|2"}},
		{"quote never closed", "a,b\n1,2\n\"3,4\n5,6\n7,8\n", []string{"2:1|2", "3!unbalanced_quote", "4:5|6", "5:7|8"}},
		{"quote closed by another row's", "a,b\n\"1,2\n\"5\",6\n7,8\n", []string{"2!unbalanced_quote", "3:5|6", "4:7|8"}},
		{"quote never closed in the last row", "a,b\n1,2\n3,\"4", []string{"2:1|2", "3!unbalanced_quote"}},
		{"text behind a quote", "a,b\n\"1\"x,2\n3,4\n", []string{"2!unbalanced_quote", "3:3|4"}},
		{"NUL", "a,b\n1\x00,2\n3,4\n", []string{"2!control_character", "3:3|4"}},
		{"NUL in quotes", "a,b\n\"1\n\x00\",2\n3,4\n", []string{"2!control_character", "3!control_character", "4:3|4"}},
		{"semicolons", "a;b\n1,5;2\n", []string{"2:1,5|2"}},
		{"tabs", "a\tb\n1\t2\n", []string{"2:1|2"}},
		{"bars", "a|b\n1,1|2\n", []string{"2:1,1|2"}},
		{"delimiter in a quoted name", "\"a;b;c\",d\n1,2\n", []string{"2:1|2"}},
		{"one column", "a\n1\n\"\"\n2\n", []string{"2:1", "3:", "4:2"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for name, src := range map[string]io.Reader{
				"whole": strings.NewReader(tc.in), "byte by byte": iotest.OneByteReader(strings.NewReader(tc.in)),
				"data with EOF": iotest.DataErrReader(strings.NewReader(tc.in)),
			} {
				_, rows, err := readCSV(src)
				require.NoError(t, err, name)
				require.Equal(t, tc.want, rows, name)
			}
		})
	}
}

func TestCSVIsRefusedAsAWhole(t *testing.T) {
	wide := strings.Repeat("c,", 9999) + "c"
	for _, tc := range []struct {
		name, in, code, says string
	}{
		{"empty", "", CodeEmpty, "empty"},
		{"only a byte order mark", "\ufeff", CodeEmpty, "empty"},
		{"only line ends", "\r\n\n\r", CodeEmpty, "empty"},
		{"UTF-16 little endian", "\xff\xfea\x00,\x00", CodeEncoding, "UTF-16"},
		{"UTF-16 big endian", "\xfe\xff\x00a\x00,", CodeEncoding, "UTF-16"},
		{"UTF-16 without mark", "a\x00,\x00b\x00\n\x00", CodeEncoding, "UTF-16"},
		{"a workbook", "PK\x03\x04rest", CodeNotText, "workbook"},
		{"gzip", "\x1f\x8b\x08rest", CodeNotText, "archive"},
		{"a name twice", "phone,name, Name\n1,2,3\n", CodeDuplicate, "columns 2 and 3"},
		{"a name missing", "phone,,b\n", CodeHeader, "column 2 has no name"},
		{"a name in Latin-1", "phone,pr\xe9nom\n", CodeEncoding, "column 2"},
		{"a name with a line end", "phone,\"a\nb\"\n", CodeHeader, "column 2"},
		{"quote never closed", "phone,\"name\n1,2\n", CodeHeader, "quote"},
		{"10,000 columns", wide, CodeColumns, "1,000"},
		{"a name of 100 KB", "phone," + strings.Repeat("x", 100_000), CodeHeader, "64 KiB"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, _, err := readCSV(strings.NewReader(tc.in))
			var file *FileError
			require.ErrorAs(t, err, &file)
			require.Equal(t, tc.code, file.Code)
			require.Contains(t, err.Error(), tc.says)
		})
	}
}

// endless yields n times the same byte.
type endless struct {
	c byte
	n int
}

func (e *endless) Read(p []byte) (int, error) {
	if e.n == 0 {
		return 0, io.EOF
	}
	k := min(len(p), e.n)
	copy(p, bytes.Repeat([]byte{e.c}, k))
	e.n -= k
	return k, nil
}

func TestHugeRowsCostLittleMemoryAndTheRestGoesOn(t *testing.T) {
	const huge = 100 << 20
	for _, tc := range []struct {
		name, before string
		fill         byte
		after        string
		want         []string
	}{
		{"a cell", "a,b\n1,", 'x', "\n3,4\n", []string{"2!cell_too_large", "3:3|4"}},
		{"a quoted cell", "a,b\n1,\"", 'x', "\"\n3,4\n", []string{"2!cell_too_large", "3:3|4"}},
		{"many cells", "a,b\n1,", ',', "\n3,4\n", []string{"2!too_many_columns", "3:3|4"}},
		{"spaces before a quote", "a,b\n1,", ' ', "\n3,4\n", []string{"2!cell_too_large", "3:3|4"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, err := newCSV(io.MultiReader(strings.NewReader(tc.before), &endless{tc.fill, huge}, strings.NewReader(tc.after)))
			require.NoError(t, err)
			var rows []string
			for {
				in, err := r.next()
				if err == io.EOF {
					break
				}
				require.NoError(t, err)
				if in.bad != nil {
					rows = append(rows, fmt.Sprintf("%d!%s", in.line, in.bad.reason))
					require.Less(t, len(in.bad.value), 250)
				} else {
					rows = append(rows, fmt.Sprintf("%d:%s", in.line, strings.Join(in.cells, "|")))
				}
			}
			require.Equal(t, tc.want, rows)
			require.Less(t, cap(r.w.buf), 4*maxRow)
			require.Less(t, cap(r.text), 4*maxRow)
		})
	}
}

// TestGoingBackIsBounded uses rows that are refused late and begin again soon: read naively they cost a thousand times
// the file.
func TestGoingBackIsBounded(t *testing.T) {
	file := "a,b\n" + strings.Repeat("a\",b,\"\n", 100_000)
	src := &counting{r: strings.NewReader(file)}
	r, err := newCSV(src)
	require.NoError(t, err)
	r.back = 4 << 20
	for {
		if _, err := r.next(); err == io.EOF {
			break
		}
		require.NoError(t, err)
		require.GreaterOrEqual(t, r.back, 0)
	}
	require.Less(t, r.back, 10_000, "the file does make the reader go back")
	require.Equal(t, len(file), src.n)
}

type counting struct {
	r io.Reader
	n int
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

func TestAReadErrorIsNotTheEnd(t *testing.T) {
	gone := errors.New("client is gone")
	for _, in := range []string{"", "a,b", "a,b\n", "a,b\n1,2\n3,4", "a,b\n\"1"} {
		_, _, err := readCSV(io.MultiReader(strings.NewReader(in), iotest.ErrReader(gone)))
		require.ErrorIs(t, err, gone, "%q", in)
	}
	_, _, err := readCSV(io.MultiReader(strings.NewReader("a,b\n1,2\n"), iotest.ErrReader(fmt.Errorf("body: %w", io.EOF))))
	require.ErrorIs(t, err, io.ErrUnexpectedEOF, "only the bare io.EOF is the end")
	_, _, err = readCSV(io.MultiReader(strings.NewReader("a,b\n"), &silent{}))
	require.ErrorIs(t, err, io.ErrNoProgress)
}

type silent struct{}

func (silent) Read([]byte) (int, error) { return 0, nil }

// FuzzCSV holds the reader against encoding/csv: what that reads without an error, this reads to the same cells.
func FuzzCSV(f *testing.F) {
	for _, s := range []string{
		"a,b\n1,2\n", "a;b\r\n\"x;\"\"\",2\r\n", "a\r1\r2", "a,b\n\"1\n2\",3\n", "\ufeffa\tb\n1\t2", "a,b\n\"1,2\n3,4\n",
		"a,b\n,\n\n1,2", "a,b\n\x00,2\n", "PK\x03\x04", "\xff\xfea", "a|b\n\"1\"x|2\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := newCSV(bytes.NewReader(in))
		if err != nil {
			return
		}
		var got [][]string
		bad, last := 0, 0
		for {
			row, err := r.next()
			if err == io.EOF {
				break
			}
			require.NoError(t, err)
			require.Greater(t, row.line, last)
			last = row.line
			if row.bad != nil {
				bad++
				continue
			}
			require.Len(t, row.cells, len(r.columns))
			got = append(got, row.cells)
		}
		require.LessOrEqual(t, last, 1+bytes.Count(in, []byte("\n"))+bytes.Count(in, []byte("\r")))
		if bad > 0 || bytes.ContainsAny(in, "\r ") { // it keeps spaces before quotes, and turns \r\n in quotes into \n
			return
		}
		std := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(in, []byte("\ufeff"))))
		std.Comma = rune(r.delim)
		std.FieldsPerRecord = -1
		all, err := std.ReadAll()
		if err != nil {
			return
		}
		var want [][]string
		for _, cells := range all[1:] {
			if len(cells) > 1 && strings.Join(cells, "") == "" {
				continue
			}
			want = append(want, cells)
		}
		require.Equal(t, want, got)
	})
}

func BenchmarkCSV(b *testing.B) {
	var file bytes.Buffer
	file.WriteString("mobile,first_name,city,order\n")
	for i := range 20_000 {
		fmt.Fprintf(&file, "%s,\"Name, %d\",Mumbai,%d\n", phone(i), i, i*7)
	}
	b.SetBytes(int64(file.Len()))
	for b.Loop() {
		r, err := newCSV(bytes.NewReader(file.Bytes()))
		if err != nil {
			b.Fatal(err)
		}
		for err == nil {
			_, err = r.next()
		}
	}
	b.ReportMetric(float64(b.N)*20_000/b.Elapsed().Seconds(), "rows/s")
}
