#!/usr/bin/env bash
# Makes docs/report.png, the screenshot of README.md, from the report of a run:
#
#   docs/take_screenshot.sh [RUN]     (default: runs/quickstart, which `make run` leaves)
#
# Needs Chromium.
set -euo pipefail
page=$(realpath "${1:-runs/quickstart}/report.html")
picture=$(realpath "$(dirname "$0")")/report.png
chromium --headless --no-sandbox --hide-scrollbars --window-size=1100,1650 \
    --screenshot="$picture" "file://$page" 2>/dev/null
ls -l "$picture"
