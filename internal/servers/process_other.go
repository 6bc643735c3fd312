//go:build !unix

package servers

import (
	"errors"
	"os"
	"syscall"
)

// The kit needs process groups and signals. Elsewhere it compiles, and its tests fail with this.
var errSystem = errors.New("test servers run on Unix systems only; name running ones with MSGCTL_TEST_POSTGRES_URL, " +
	"MSGCTL_TEST_AMQP_URL and MSGCTL_TEST_REDIS_URL")

const (
	sigKill = syscall.Signal(9)
	sigStop = syscall.Signal(19)
	sigCont = syscall.Signal(18)
	sigInt  = syscall.SIGINT
	sigTerm = syscall.SIGTERM
)

func signal(int, syscall.Signal) error { return errSystem }

func ownGroup(*account) *syscall.SysProcAttr { return nil }

type account struct{ uid, gid int }

func unprivileged() (*account, error) { return nil, errSystem }

func lock(*os.File) (bool, error) { return false, errSystem }
