package campaigns

import (
	"errors"
	"fmt"
	"strings"

	"github.com/msgctl/msgctl/store"
)

// ErrImporting means that another import to the same audience is running.
var ErrImporting = errors.New("an import to this audience is running")

// The codes of FileError. They are part of the API: never change one.
const (
	CodeName          = "invalid_name"
	CodeFormat        = "unknown_format"
	CodeRegion        = "invalid_region"
	CodeEncoding      = "invalid_encoding"
	CodeNotText       = "not_text"
	CodeEmpty         = "empty_file"
	CodeNoRows        = "no_rows"
	CodeHeader        = "invalid_header"
	CodeDuplicate     = "duplicate_column"
	CodeColumns       = "too_many_columns"
	CodeUnknownColumn = "unknown_column"
	CodeNoAddress     = "no_address_column"
)

// FileError refuses an import as a whole: nothing was stored. Its text is safe to show to the one who sent the file.
type FileError struct {
	Code   string
	Line   int // 0 = not about a line
	Detail string
}

func (e *FileError) Error() string {
	if e.Line > 0 {
		return fmt.Sprintf("line %d: %s", e.Line, e.Detail)
	}
	return e.Detail
}

// StateError refuses an action that the campaign's state does not allow.
type StateError struct {
	Action  string
	State   store.CampaignState
	Actions []string // what can be done instead
}

func (e *StateError) Error() string {
	s := fmt.Sprintf("cannot %s a campaign that is %s", e.Action, e.State)
	if len(e.Actions) > 0 {
		s += "; possible now: " + strings.Join(e.Actions, ", ")
	}
	return s
}

// Problem is one thing that keeps a campaign from starting.
type Problem struct {
	Code   string // a stable word such as audience_missing
	Detail string // one sentence for a person, with the fix where there is one
}

func (p Problem) String() string { return p.Detail }

// BlockedError refuses a start and lists every reason at once.
type BlockedError struct{ Problems []Problem }

func (e *BlockedError) Error() string {
	texts := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		texts[i] = p.Detail
	}
	return "the campaign cannot start: " + strings.Join(texts, "; ")
}
