// Says which processor it was built for.
package main

import (
	"fmt"
	"runtime"
)

var version string

func main() {
	fmt.Println(runtime.GOOS, runtime.GOARCH, version)
}
