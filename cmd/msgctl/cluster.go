package main

import (
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/msgctl/msgctl/sdk"
)

func (a *app) clusterCmd() *cobra.Command {
	return a.group("cluster", "Cluster: the engines that work together", a.clusterStatus())
}

func (a *app) clusterStatus() *cobra.Command {
	cmd := &cobra.Command{
		Use: "status", Short: "Show nodes and what they stand on; exit 9 if any is wrong", Args: a.args(),
		Long: "Show the nodes of the cluster, as the store knows them, and what they stand\n" +
			"on, as the node sees it that answers. Nodes that have been gone for an hour are\n" +
			"left out. For operators.",
		Example: "  msgctl cluster status\n  msgctl cluster status --jq '.[] | select(.state != \"alive\") | .name'",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			got, err := c.Cluster(cmd.Context())
			if err != nil {
				return err
			}
			v := view{
				cols: []string{"name", "state", "roles", "claims", "behind", "skew", "seen", "version"},
				wide: []string{"address", "started", "applied"}, id: "name", none: "no nodes",
			}
			if err := list(a, v, got.Nodes); err != nil {
				return err
			}
			return a.clusterVerdict(got)
		},
	}
	return a.shape(cmd, sdk.Node{})
}

// clusterVerdict names what is wrong.
func (a *app) clusterVerdict(c *sdk.Cluster) error {
	wrong := 0
	for _, part := range slices.Sorted(maps.Keys(c.Parts)) {
		if state := c.Parts[part]; state != "ok" {
			wrong++
			a.complain("%s: %s", part, state)
		} else if a.flags.verbose {
			a.say("✓ %s", part)
		}
	}
	roles := map[string]bool{}
	for _, n := range c.Nodes {
		switch {
		case n.State == sdk.NodeGone:
			wrong++
			seen := "an unknown time"
			if n.Seen != nil {
				seen = n.Seen.Format("2006-01-02 15:04:05Z07:00")
			}
			a.complain("node %s is gone; its last sign of life was at %s", n.Name, seen)
		case n.State == sdk.NodeAlive:
			for _, r := range n.Roles {
				roles[r] = true
			}
		}
	}
	for _, r := range []string{"api", "deliver", "schedule", "webhook"} {
		if !roles[r] {
			wrong++
			a.complain("no node has the role %s", r)
		}
	}
	if wrong == 0 {
		return nil
	}
	return &outcomeError{code: exitUnmet, what: fmt.Sprintf("%s with the cluster", count(wrong, "thing")+" wrong")}
}
