log() { printf '%s %s\n' "$(date +%F)" "$*"; }
