#!/bin/sh
# Install Chromium and its driver from Debian, for the browser tests (`pytest -m browser`).
# Does nothing where both are there. Where it cannot, it says why and exits 0: those tests then skip themselves.
set -eu

have() { command -v "$1" >/dev/null 2>&1; }

if have chromium && have chromedriver; then
    exit 0
fi
if ! have apt-get; then
    echo "install-chromium: no apt-get here. Put chromium and chromedriver on PATH by hand; browser tests skip until then."
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "install-chromium: only root may install packages. Run it with sudo; browser tests skip until then."
    exit 0
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
if { apt-get update && apt-get install --yes --no-install-recommends chromium chromium-driver; } >"$log" 2>&1; then
    exit 0
fi
echo "install-chromium: apt-get failed; browser tests skip until it is mended. Its last words:"
tail -n 5 "$log"
exit 0
