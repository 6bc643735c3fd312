package postgres

// WriteChanges is the statement that writes the list of changes.
const WriteChanges = writeChanges
