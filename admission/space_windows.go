package admission

import "golang.org/x/sys/windows"

// Space returns how many bytes of the file system of dir are free for this user, and how many there are.
func Space(dir string) (free, total uint64, err error) {
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, 0, err
	}
	err = windows.GetDiskFreeSpaceEx(name, &free, &total, nil)
	return free, total, err
}
