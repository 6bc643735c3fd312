package main

import (
	"fmt"
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"
)

// line prints a row of a table at once: tab separated, or in columns on a terminal.
func (w *rowWriter) line(cells []string) error {
	if !w.head {
		if err := w.tableHead(); err != nil {
			return err
		}
	}
	if !w.a.outTTY {
		return w.put(strings.Join(cells, "\t"))
	}
	_, err := fmt.Fprintln(w.a.out, w.padded(cells, w.fixed(), true))
	return err
}

func (w *rowWriter) fixed() []int {
	out := make([]int, len(w.cols))
	for i, c := range w.cols {
		switch c {
		case "fact.at":
			out[i] = 20
		case "message":
			out[i] = 30
		default:
			out[i] = 11
		}
	}
	return out
}

func (w *rowWriter) tableHead() error {
	if w.head {
		return nil
	}
	w.head = true
	if !w.a.outTTY {
		return w.put(strings.Join(w.cols, "\t"))
	}
	_, err := fmt.Fprintln(w.a.out, w.a.paint(bold, w.padded(headings(w.cols), w.fixed(), false)))
	return err
}

func headings(cols []string) []string {
	out := make([]string, len(cols))
	for i, c := range cols {
		out[i] = strings.ToUpper(strings.NewReplacer("_", " ", "fact.", "", ".", " ").Replace(c))
	}
	return out
}

// table prints aligned columns.
func (w *rowWriter) table() error {
	heads := headings(w.cols)
	widths := make([]int, len(w.cols))
	for _, row := range append(w.cells, heads) {
		for i, c := range row {
			widths[i] = max(widths[i], text.StringWidthWithoutEscSequences(c))
		}
	}
	var b strings.Builder
	b.WriteString(w.a.paint(bold, w.padded(heads, widths, false)) + "\n")
	for _, row := range w.cells {
		b.WriteString(w.padded(row, widths, true) + "\n")
	}
	_, err := fmt.Fprint(w.a.out, b.String())
	return err
}

func (w *rowWriter) padded(cells []string, widths []int, colour bool) string {
	var b strings.Builder
	for i, c := range cells {
		gap := widths[i] - text.StringWidthWithoutEscSequences(c) + 2
		if colour {
			c = w.a.tint(c)
		}
		b.WriteString(c)
		if i < len(cells)-1 {
			b.WriteString(strings.Repeat(" ", max(gap, 1)))
		}
	}
	return strings.TrimRight(b.String(), " ")
}

// vertical prints one value, a field a line.
func (w *rowWriter) vertical() error {
	wide := 0
	for _, c := range w.cols {
		wide = max(wide, len(c))
	}
	for i, c := range w.cols {
		v := w.cells[0][i]
		if v == "" && !w.picked {
			continue
		}
		s := c + "\t" + v
		if w.a.outTTY {
			s = w.a.paint(bold, fmt.Sprintf("%-*s", wide, strings.ReplaceAll(c, "_", " "))) + "  " + w.a.tint(v)
		}
		if _, err := fmt.Fprintln(w.a.out, s); err != nil {
			return err
		}
	}
	return nil
}
