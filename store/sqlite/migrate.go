package sqlite

import (
	"errors"
	"fmt"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// migrate brings the schema up to what this program knows. The files schema/0001_*.sql, 0002_*.sql … are its
// versions; PRAGMA user_version says which ran. Each runs in its own transaction.
func migrate(conn *sqlite.Conn) error {
	files, err := schemaFiles.ReadDir("schema")
	if err != nil {
		return err
	}
	number := func(pragma string) (n int, err error) {
		err = query(conn, "PRAGMA "+pragma, func(s *sqlite.Stmt) error {
			n = s.ColumnInt(0)
			return nil
		})
		return n, explain(err)
	}
	version, err := number("user_version")
	if err != nil {
		return err
	}
	app, err := number("application_id")
	if err != nil {
		return err
	}
	empty := true
	if err := query(conn, "SELECT 1 FROM sqlite_schema LIMIT 1", func(*sqlite.Stmt) error {
		empty = false
		return nil
	}); err != nil {
		return explain(err)
	}
	if !empty && app != applicationID {
		return errors.New("the file is a database of another program")
	}
	if version > len(files) {
		return fmt.Errorf("database has schema %d, this program knows up to %d: use a newer msgctl", version, len(files))
	}
	for i := version; i < len(files); i++ {
		script, err := schemaFiles.ReadFile("schema/" + files[i].Name())
		if err != nil {
			return err
		}
		if err := runScript(conn, i+1, string(script)); err != nil {
			return fmt.Errorf("schema %d: %w", i+1, err)
		}
	}
	return nil
}

func runScript(conn *sqlite.Conn, version int, script string) (err error) {
	end, err := sqlitex.ImmediateTransaction(conn)
	if err != nil {
		return err
	}
	defer end(&err)
	script += fmt.Sprintf("\nPRAGMA application_id = %d;\nPRAGMA user_version = %d;\n", applicationID, version)
	return sqlitex.ExecuteScript(conn, script, nil)
}
