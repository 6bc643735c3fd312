package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"
	driver "zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/msgctl/msgctl/engine"
)

// prepared makes a directory in which an engine has run.
func prepared(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	e, err := engine.New(engine.Config{Dir: dir})
	require.NoError(t, err)
	require.NoError(t, e.Start(context.Background()))
	require.NoError(t, e.Close())
	return dir
}

func script(t *testing.T, dir, sql string) string {
	t.Helper()
	conn, err := driver.OpenConn(filepath.Join(dir, "msgctl.db"), driver.OpenReadWrite)
	require.NoError(t, err)
	require.NoError(t, sqlitex.ExecuteScript(conn, sql, nil))
	require.NoError(t, conn.Close())
	return dir
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "engine.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// TestRefusesToStart gives the server what it cannot run with. Each time it ends at once and names what is wrong.
func TestRefusesToStart(t *testing.T) {
	readable := prepared(t)
	require.NoError(t, os.Chmod(filepath.Join(readable, "master.key"), 0o644))
	damaged := prepared(t)
	require.NoError(t, os.WriteFile(filepath.Join(damaged, "master.key"), []byte("not a key"), 0o600))
	file := write(t, "x")
	for _, c := range []struct {
		name string
		args []string
		code int
		says []string
	}{
		{"unknown key", []string{"--config", write(t, "dir: x\nlisten: 127.0.0.1:0\nretries: [5s]\n")}, exitUsage, []string{"retries", "engine.yaml"}},
		{"unknown key below", []string{"--config", write(t, "log: { levl: debug }\n")}, exitUsage, []string{"levl"}},
		{"wrong type", []string{"--config", write(t, "dir: [a]\n")}, exitUsage, []string{"dir"}},
		{"bad value", []string{"--config", write(t, "log: { level: loud }\n")}, exitUsage, []string{"log.level", "loud"}},
		{"another kind of store", []string{"--config", write(t, "store: mysql://u:hunter2@localhost/x\n")}, exitUsage, []string{"store", `"mysql"`, "postgres://"}},
		{"a store without a scheme", []string{"--store", "db.example.com"}, exitUsage, []string{"store", "postgres://"}},
		{"a URL that cannot be read", []string{"--store", "postgres://u:hunter2%zz@h/x"}, exitUsage, []string{"store", "%XX"}},
		{"another kind of broker", []string{"--store", "postgres://h/x", "--broker", "kafka://u:hunter2@h"}, exitUsage, []string{"broker", `"kafka"`}},
		{"another kind of limits", []string{"--store", "postgres://h/x", "--limits", "memcached://h"}, exitUsage, []string{"limits", `"memcached"`}},
		{"a broker without a host", []string{"--store", "postgres://h/x", "--broker", "amqp:"}, exitUsage, []string{"broker", "host"}},
		{"a broker alone", []string{"--broker", "amqp://h"}, exitUsage, []string{"broker", "store"}},
		{"limits alone", []string{"--limits", "redis://h"}, exitUsage, []string{"limits", "store"}},
		{"roles alone", []string{"--roles", "api"}, exitUsage, []string{"roles", "store"}},
		{"unknown role", []string{"--store", "postgres://h/x", "--roles", "api,send"}, exitUsage, []string{"roles", `"send"`, "deliver"}},
		{"a role twice", []string{"--store", "postgres://h/x", "--roles", "api,api"}, exitUsage, []string{"roles", "twice"}},
		{"bad node", []string{"--store", "postgres://h/x", "--node", "a b"}, exitUsage, []string{"node", `"a b"`}},
		{"long heartbeat", []string{"--store", "postgres://h/x", "--heartbeat", "5m"}, exitUsage, []string{"heartbeat", "5m0s"}},
		{"no heartbeat", []string{"--heartbeat", "soon"}, exitUsage, []string{"heartbeat", "soon"}},
		{"traces to nowhere", []string{"--otlp", "localhost:4317"}, exitUsage, []string{"telemetry.otlp", "http://localhost:4318"}},
		{"no share", []string{"--trace-sample", "10%"}, exitUsage, []string{"telemetry.sample", "10%", "0 to 1"}},
		{"too large a share", []string{"--trace-sample", "10"}, exitUsage, []string{"telemetry.sample", "10"}},
		{"no such file", []string{"--config", file + ".no"}, exitUsage, []string{file + ".no"}},
		{"a directory", []string{"--config", t.TempDir()}, exitUsage, []string{"is a directory"}},
		{"unknown flag", []string{"--dirr", "x"}, exitUsage, []string{"--dirr", "engine --help"}},
		{"unknown argument", []string{"server"}, exitUsage, []string{`"server"`}},
		{"a file as directory", []string{"--dir", file}, exitFailed, []string{file}},
		{"master key readable by all", []string{"--dir", readable}, exitFailed, []string{"master.key", "chmod 600"}},
		{"master key damaged", []string{"--dir", damaged}, exitFailed, []string{"master.key"}},
		{"newer schema", []string{"--dir", script(t, prepared(t), "PRAGMA user_version = 99")}, exitFailed, []string{"schema 99", "newer msgctl"}},
		{"another program's database", []string{"--dir", script(t, prepared(t), "PRAGMA application_id = 5")}, exitFailed, []string{"another program"}},
		{"broken address", []string{"--dir", t.TempDir(), "--listen", "127.0.0.1:99999"}, exitFailed, []string{"127.0.0.1:99999", "--listen"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			require.Equal(t, c.code, run(append(c.args, "--log-level", "error"), &out, &errs), errs.String())
			for _, want := range c.says {
				require.Contains(t, errs.String(), want)
			}
			require.True(t, strings.HasPrefix(errs.String(), "engine: "), errs.String())
			require.NotContains(t, errs.String(), "goroutine")
			require.NotContains(t, errs.String(), "hunter2", "a password")
			require.Empty(t, out.String())
		})
	}
}

func TestPrintsTheConfigurationWithoutPasswords(t *testing.T) {
	t.Setenv("MSGCTL_STORE", "postgres://msgctl:hunter2@db/msgctl?sslpassword=hunter2")
	t.Setenv("MSGCTL_BROKER", "amqps://msgctl:hunter2@mq")
	t.Setenv("MSGCTL_LIMITS", "rediss://:hunter2@cache")
	t.Setenv("MSGCTL_NODE", "eu-1")
	t.Setenv("MSGCTL_ROLES", "deliver, schedule")
	var out, errs bytes.Buffer
	require.Zero(t, run([]string{"config", "--heartbeat", "2s"}, &out, &errs), errs.String())
	for _, want := range []string{"postgres://msgctl:xxxxx@db/msgctl", "amqps://", "@mq", "@cache", "node: eu-1", "- deliver", "heartbeat: 2s"} {
		require.Contains(t, out.String(), want)
	}
	require.NotContains(t, out.String(), "hunter2")
}

func TestWhereTracesGo(t *testing.T) {
	file := write(t, "telemetry: { otlp: http://file:4318, sample: 0.5 }\n")
	for _, c := range []struct {
		name   string
		args   []string
		env    map[string]string
		otlp   string
		sample float64 // -1 = unset
	}{
		{"nowhere", nil, nil, "", -1},
		{"the flag goes first", []string{"--config", file, "--otlp", "http://flag:4318", "--trace-sample", "0.25"},
			map[string]string{"MSGCTL_TELEMETRY__OTLP": "http://env:4318", "MSGCTL_TELEMETRY__SAMPLE": "1"}, "http://flag:4318", 0.25},
		{"then the variable", []string{"--config", file}, map[string]string{"MSGCTL_TELEMETRY__OTLP": "http://env:4318",
			"MSGCTL_TELEMETRY__SAMPLE": "0"}, "http://env:4318", 0},
		{"then the file", []string{"--config", file}, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://all:4318"},
			"http://file:4318", 0.5},
		{"then what all programs are told", nil, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://all:4318"},
			"http://all:4318/v1/traces", -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, k := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_SDK_DISABLED"} {
				t.Setenv(k, c.env[k])
			}
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			var out, errs bytes.Buffer
			require.Zero(t, run(append(c.args, "config"), &out, &errs), errs.String())
			var got engine.Config
			require.NoError(t, yaml.Unmarshal(out.Bytes(), &got))
			require.Equal(t, c.otlp, got.Telemetry.OTLP)
			if c.sample < 0 {
				require.Nil(t, got.Telemetry.Sample)
				return
			}
			require.Equal(t, c.sample, *got.Telemetry.Sample)
		})
	}
}
