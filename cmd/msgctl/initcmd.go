package main

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// scaffold holds the files that init writes. Those in Go are built and tested with the rest of the tree.
//
//go:embed all:scaffold
var scaffold embed.FS

func kinds() []string { return []string{"campaign", "sdk", "connector"} }

func (a *app) initCmd() *cobra.Command {
	var kind string
	cmd := &cobra.Command{
		Use: "init [DIR]", Short: "Write commented files to start from, runnable as they are", Args: a.args("[DIR]"),
		Example: "  msgctl init shop --kind sdk && cd shop && go mod tidy && go run .",
		RunE: func(_ *cobra.Command, args []string) error {
			if err := oneOf("kind", kind, kinds()); err != nil {
				return err
			}
			dir := "."
			if len(args) == 1 {
				dir = args[0]
			}
			return a.writeScaffold(kind, dir)
		},
	}
	cmd.Flags().StringVar(&kind, "kind", "campaign", "`KIND`: campaign, sdk or connector")
	_ = cmd.RegisterFlagCompletionFunc("kind", fixed(kinds()...))
	return cmd
}

// writeScaffold copies the files of a kind. It changes no file that exists, and writes none when one does.
func (a *app) writeScaffold(kind, dir string) error {
	src, err := fs.Sub(scaffold, "scaffold/"+kind)
	if err != nil {
		return err
	}
	var names []string
	err = fs.WalkDir(src, ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	slices.Sort(names)
	target := func(name string) string {
		return filepath.Join(dir, filepath.FromSlash(strings.TrimSuffix(name, ".tmpl")))
	}
	for _, name := range names {
		if _, err := os.Lstat(target(name)); err == nil {
			return &outcomeError{
				code: exitConflict, what: target(name) + " exists: nothing was written",
				fix: "name another folder: msgctl init DIR",
			}
		} else if !errors.Is(err, fs.ErrNotExist) {
			return &usageError{what: "cannot write", err: err}
		}
	}
	for _, name := range names {
		b, err := fs.ReadFile(src, name)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(target(name)), 0o755); err != nil {
			return &usageError{what: "cannot write", err: err}
		}
		mode := fs.FileMode(0o644)
		if strings.HasSuffix(name, ".sh") {
			mode = 0o755
		}
		if err := os.WriteFile(target(name), b, mode); err != nil {
			return &usageError{what: "cannot write", err: err}
		}
		if _, err := fmt.Fprintln(a.out, target(name)); err != nil {
			return err
		}
	}
	a.say("next: see %s", filepath.Join(dir, "README.md"))
	return nil
}
