#!/bin/sh
echo "user $(id -un), $(jq -rn '"jq \(1 + 1)"'), lists: $(ls /var/lib/apt/lists | grep -c Packages), docs: $(ls /usr/share/doc/curl | tr '\n' ' ')"
