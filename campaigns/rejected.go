package campaigns

import (
	"bufio"
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// maxRejected is how many rejected rows are listed; the rest is only counted.
const maxRejected = 1_000_000

// namePattern keeps an audience's name usable as a file name: no separator, no leading dot.
const namePattern = `^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`

// tenantPattern is the form of a delivery.TenantID.
const tenantPattern = `^[a-z0-9-]{1,40}$`

// checkName refuses a name that could leave the folder of rejected rows.
func checkName(tenant delivery.TenantID, name string) error {
	if ok, _ := regexp.MatchString(tenantPattern, string(tenant)); !ok {
		return &FileError{CodeName, 0, "the tenant's name is not valid"}
	}
	if ok, _ := regexp.MatchString(namePattern, name); !ok {
		return &FileError{CodeName, 0,
			"the name of an audience has 1 to 64 letters, digits, dots, dashes or underscores and begins with a letter or " +
				"digit"}
	}
	return nil
}

// rejectFile is the path below Dir, with slashes.
func rejectFile(tenant delivery.TenantID, name string) string {
	return path.Join("rejected", string(tenant), name+".csv")
}

// Rejected opens the list of rows that the last import of an audience left out: CSV with the columns line, column,
// reason, detail and value. The caller closes it. The error is store.ErrNotFound when there is no audience or no list.
func (s *Service) Rejected(ctx context.Context, tenant delivery.TenantID, name string) (io.ReadCloser, error) {
	if err := checkName(tenant, name); err != nil {
		return nil, fmt.Errorf("audience: %w", store.ErrNotFound)
	}
	if _, err := s.Store.Audience(ctx, tenant, name); err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(s.Dir, filepath.FromSlash(rejectFile(tenant, name))))
	if os.IsNotExist(err) {
		return nil, fmt.Errorf("rejected rows of %q: %w", name, store.ErrNotFound)
	}
	return f, err
}

// rejectWriter writes the list of rejected rows. The file appears with the first of them.
type rejectWriter struct {
	path   string
	max    int
	file   *os.File
	buf    *bufio.Writer
	csv    *csv.Writer
	listed int
	more   int
	first  string
	counts map[string]int
}

func newRejectWriter(path string) (*rejectWriter, error) {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	return &rejectWriter{path: path, max: maxRejected, counts: map[string]int{}}, nil
}

func (w *rejectWriter) add(r *rejection) error {
	if w.counts[r.reason]++; w.first == "" {
		w.first = r.String()
	}
	if w.listed == w.max {
		w.more++
		return nil
	}
	if w.file == nil {
		if err := w.create(); err != nil {
			return err
		}
	}
	w.listed++
	return w.csv.Write([]string{strconv.Itoa(r.line), neutral(r.column), r.reason, neutral(r.detail), neutral(r.value)})
}

func (w *rejectWriter) create() error {
	if err := os.MkdirAll(filepath.Dir(w.path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(w.path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	w.file, w.buf = f, bufio.NewWriterSize(f, 64<<10)
	w.csv = csv.NewWriter(w.buf)
	return w.csv.Write([]string{"line", "column", "reason", "detail", "value"})
}

// close ends the file with the number of rows that it does not list. It is safe to call twice.
func (w *rejectWriter) close() error {
	if w.file == nil {
		return nil
	}
	if w.more > 0 {
		_ = w.csv.Write([]string{"", "", "more", fmt.Sprintf("%d more rows were left out and are not listed", w.more), ""})
	}
	w.csv.Flush()
	err := w.csv.Error()
	if e := w.buf.Flush(); err == nil {
		err = e
	}
	if e := w.file.Close(); err == nil {
		err = e
	}
	w.file = nil
	return err
}

// neutral makes a text safe to open in a spreadsheet and to print on a terminal: a text that would be read as a formula
// (OWASP, CSV Injection) gets a leading quote, control characters become spaces.
func neutral(s string) string {
	if s == "" {
		return s
	}
	formula := strings.ContainsRune("=+-@\t\r\n＝＋－＠", []rune(s)[0])
	s = strings.Map(func(r rune) rune {
		if isControl(r) || r == '\u2028' || r == '\u2029' || r >= '\u202a' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\ufffd"))
	if formula || strings.ContainsRune("=+-@＝＋－＠", firstVisible(s)) {
		return "'" + s
	}
	return s
}

func firstVisible(s string) rune {
	for _, r := range s {
		if r != ' ' && r != '\u00a0' {
			return r
		}
	}
	return ' '
}

func removeRejected(dir string, tenant delivery.TenantID, name string) error {
	err := os.Remove(filepath.Join(dir, filepath.FromSlash(rejectFile(tenant, name))))
	if os.IsNotExist(err) {
		return nil
	}
	return err
}
