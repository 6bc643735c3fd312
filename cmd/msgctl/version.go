package main

import (
	"runtime"

	"github.com/spf13/cobra"
)

// versionInfo is what the program says of itself.
type versionInfo struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Engine  string `json:"engine,omitempty"` // with -v
}

func (a *app) versionCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "version", Short: "Show the version; with -v the engine's too", Args: a.args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := versionInfo{Version: release(), Go: runtime.Version(), OS: runtime.GOOS + "/" + runtime.GOARCH}
			if a.flags.verbose {
				c, err := a.client()
				if err != nil {
					return err
				}
				if v.Engine, err = c.Version(cmd.Context()); err != nil {
					return err
				}
			}
			return a.object(view{cols: []string{"version", "go", "os", "engine"}, id: "version"}, v)
		},
	}
	return a.shape(cmd, versionInfo{})
}
