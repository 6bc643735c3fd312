package sdk

import (
	"context"
	"net/http"
	"time"
)

// Cluster is the answer of GET /v1/cluster: the engines that work on one store, and what they stand on.
type Cluster struct {
	// Embedded says that the engine is alone with its store: Nodes has this one only.
	Embedded bool `json:"embedded"`
	// Answered names the node that answers; Parts are as it sees them: part → "ok" or what is wrong.
	Answered string            `json:"answered"`
	Parts    map[string]string `json:"parts"`
	Changed  int64             `json:"changed"` // the newest change that the nodes follow
	Nodes    []Node            `json:"nodes"`   // by name; those gone for more than an hour are left out
}

// The states of a node.
const (
	NodeAlive    = "alive"
	NodeDraining = "draining" // it takes on nothing new
	NodeGone     = "gone"     // it has left, or gave no sign of life for too long
)

// Node is one engine of a cluster.
type Node struct {
	Name    string     `json:"name"`
	State   string     `json:"state"`
	Roles   []string   `json:"roles"` // api, deliver, schedule, webhook
	Version string     `json:"version,omitempty"`
	Address string     `json:"address,omitempty"`
	Started *time.Time `json:"started,omitempty"`
	Seen    *time.Time `json:"seen,omitempty"` // its last sign of life, by the store's clock
	Claims  int        `json:"claims"`         // messages that it has under lease
	Applied int64      `json:"applied"`        // the newest change that it goes by
	Behind  int64      `json:"behind"`         // changes that it does not go by yet
	// Skew is how many seconds the node's own clock is ahead of the store's. Only the node that answers knows its own.
	Skew *float64 `json:"skew,omitempty"`
}

// Cluster says which engines work together and how they are. Operators only.
func (c *Client) Cluster(ctx context.Context) (*Cluster, error) {
	return send[Cluster](ctx, c, http.MethodGet, nil, nil, "cluster")
}

// Backup is a copy of an embedded engine's database in one file.
type Backup struct {
	Path     string    `json:"path"` // on the engine's host
	Bytes    int64     `json:"bytes"`
	Taken    time.Time `json:"taken"`
	Messages int64     `json:"messages"` // ever accepted, over all tenants
}

// Backup makes an embedded engine copy its database into a new file of its directory, while everything goes on. The
// master key is not in it. Operators only. It is one try.
func (c *Client) Backup(ctx context.Context) (*Backup, error) {
	out := new(Backup)
	if err := c.do(ctx, call{method: http.MethodPost, path: "/v1/backup", once: true}, out); err != nil {
		return nil, err
	}
	return out, nil
}
