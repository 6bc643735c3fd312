//go:build unix

package crash

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/msgctl/msgctl/sdk"
)

// interrupted runs msgctl until ready, then presses Ctrl-C. It returns the exit code and stderr.
func (l *lab) interrupted(ready func() bool, cmd *exec.Cmd) (code int, errs string) {
	l.t.Helper()
	log := filepath.Join(l.t.TempDir(), "stderr")
	p := l.run(cmd, log)
	l.until("the command is in the middle of it", 5*time.Millisecond, func() bool {
		if p.ended() {
			l.FailNow("the command ended by itself", "%s", tail(log, 10))
		}
		return ready()
	})
	p.signal(syscall.SIGINT)
	code = p.wait()
	return code, tail(log, 100)
}

// TestInterruptedImport presses Ctrl-C in the middle of an import: no half audience may pass for a whole one.
func TestInterruptedImport(t *testing.T) {
	l := newLab(t, time.Minute)
	const name = "half"
	rows := func(w io.Writer, n int) {
		_, err := fmt.Fprintln(w, "email")
		for i := 0; i < n && err == nil; i++ {
			_, err = fmt.Fprintf(w, "person%d@example.com\n", i)
		}
		l.NoError(err)
	}
	cmd := l.command("audience", "import", "-", "--name", name)
	in, out, err := os.Pipe()
	l.NoError(err)
	defer out.Close()
	cmd.Stdin = in
	go func() { rows(out, 5000) }() // and then nothing: the pipe stays open
	code, errs := l.interrupted(func() bool {
		_, err := l.client.Audiences.Get(l.ctx, name)
		return err == nil
	}, cmd)
	l.NoError(in.Close())
	l.Equal(130, code, "%s", errs)
	l.Contains(errs, "is not complete")
	a, err := l.client.Audiences.Get(l.ctx, name)
	l.NoError(err)
	l.False(a.Ready)

	// A campaign cannot use it, and the same command works when it is run again.
	l.template()
	_, err = l.client.Campaigns.Create(l.ctx, sdk.CampaignRequest{
		Name: name, Audience: name, Templates: []string{"crash-email"},
	})
	if err == nil {
		_, err = l.client.Campaigns.Start(l.ctx, name)
	}
	l.Error(err)
	file := filepath.Join(t.TempDir(), "people.csv")
	f, err := os.Create(file)
	l.NoError(err)
	rows(f, 1000)
	l.NoError(f.Close())
	said := ""
	l.until("the audience can be imported again", 100*time.Millisecond, func() bool {
		code, said = l.cli("audience", "import", file, "--name", name)
		return code == 0
	})
	a, err = l.client.Audiences.Get(l.ctx, name)
	l.NoError(err)
	l.True(a.Ready, "%s", said)
	l.Equal(1000, a.People)
}

func (l *lab) template() {
	_, err := l.client.Templates.Put(l.ctx, "crash-email", sdk.TemplateRequest{
		Channel: sdk.ChannelEmail, Subject: "Hello", Text: "Hello",
	})
	l.NoError(err)
}

// TestInterruptedStart presses Ctrl-C while msgctl follows a campaign: the command ends, the campaign does not.
func TestInterruptedStart(t *testing.T) {
	l := newLab(t, time.Minute)
	l.template()
	var csv strings.Builder
	csv.WriteString("email\n")
	const n = 300
	for i := range n {
		fmt.Fprintf(&csv, "person%d@example.com\n", i)
	}
	_, err := l.client.Audiences.Import(l.ctx, "some", strings.NewReader(csv.String()), sdk.ImportOptions{})
	l.NoError(err)
	_, err = l.client.Campaigns.Create(l.ctx, sdk.CampaignRequest{
		Name: "going", Audience: "some", Templates: []string{"crash-email"}, Rate: n / 3,
	})
	l.NoError(err)
	cmd := l.command("campaign", "start", "going", "--wait", "--yes")
	code, errs := l.interrupted(func() bool { return len(l.sim.seen()) > 0 }, cmd)
	l.Equal(130, code, "%s", errs)
	l.Contains(errs, "goes on in the engine")
	l.Contains(errs, "msgctl campaign watch going")
	l.Less(len(l.sim.seen()), n, "the campaign was done before it could be interrupted")
	l.until("the campaign is completed", 50*time.Millisecond, func() bool {
		c, err := l.client.Campaigns.Get(l.ctx, "going")
		return err == nil && c.State == "completed"
	})
	l.Len(l.sim.seen(), n)
}

// TestEngineRefuses starts engines that cannot run. Each must end at once, and say what to do.
func TestEngineRefuses(t *testing.T) {
	l := newProcesses(t, time.Minute)
	l.start()
	config := filepath.Join(t.TempDir(), "engine.yaml")
	l.NoError(os.WriteFile(config, []byte("dir: x\nlisten: 127.0.0.1:0\nretries: [5s]\n"), 0o600))
	locked := filepath.Join(filepath.Dir(l.bin), filepath.Base(l.bin)+"-locked")
	l.NoError(os.Mkdir(locked, 0o555))
	t.Cleanup(func() { _ = os.Remove(locked) })
	fresh := func() string { return filepath.Join(t.TempDir(), "data") }
	for _, tc := range []struct {
		name string
		args []string
		code int
		says []string
	}{
		{"the port is in use", []string{"--dir", fresh(), "--listen", l.addr}, 1, []string{l.addr, "--listen"}},
		{
			"the directory is in use", []string{"--dir", l.dir, "--listen", "127.0.0.1:0"}, 1,
			[]string{fmt.Sprintf("in use by process %d", l.engine.cmd.Process.Pid), "another directory"},
		},
		{
			"the directory is read-only", []string{"--dir", locked, "--listen", "127.0.0.1:0"}, 1,
			[]string{locked, "permission denied"},
		},
		{
			"the directory cannot be made", []string{"--dir", filepath.Join(locked, "data"), "--listen", "127.0.0.1:0"}, 1,
			[]string{locked, "permission denied"},
		},
		{"a key that is not there", []string{"--config", config}, 2, []string{config, "retries"}},
		{"a file that is not there", []string{"--config", config + ".no"}, 2, []string{config + ".no"}},
		{"an argument that is not there", []string{"--prot", "1"}, 2, []string{"--prot", "engine --help"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			at := *l
			at.t = t
			cmd := exec.Command(filepath.Join(l.bin, "engine"), tc.args...)
			if strings.Contains(strings.Join(tc.args, " "), locked) && os.Getuid() == 0 {
				// Nothing is read-only for root.
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			}
			log := filepath.Join(t.TempDir(), "stderr")
			code := at.run(cmd, log).wait()
			said := tail(log, 100)
			l.Equal(tc.code, code, "%s", said)
			for _, want := range tc.says {
				l.Contains(said, want)
			}
			t.Logf("exit %d: %s", code, tail(log, 6))
		})
	}
	// The engine that runs has noticed nothing.
	l.signIn()
	_, err := l.client.Whoami(l.ctx)
	l.NoError(err)
}
