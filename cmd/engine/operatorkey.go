package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/msgctl/msgctl/engine"
)

// operatorKeyCommand prints the operator's first key. It is in the program because images from scratch have no cat, and
// nothing else that could bring a file out of a pod.
func operatorKeyCommand(o *options, stdout io.Writer) *cobra.Command {
	return &cobra.Command{
		Use: "operator-key", Short: "Print the operator's first key, from DIR/" + engine.OperatorKeyFile, Args: noArgs,
		Long: `operator-key prints the key that the engine made at its first start. In a cluster one node has made it and has the
file. Make keys of your own with it (msgctl key create) and delete the file.`,
		Example: `  engine operator-key --dir /var/lib/msgctl`,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := o.read()
			if err != nil {
				return err
			}
			path := filepath.Join(cfg.Dir, engine.OperatorKeyFile)
			key, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("%s is not there: the engine has not started yet, another node made the key, or the file was "+
					"deleted", path)
			}
			if err != nil {
				return err
			}
			_, err = stdout.Write(key)
			return err
		},
	}
}
