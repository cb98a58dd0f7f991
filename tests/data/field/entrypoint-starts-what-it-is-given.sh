#!/bin/sh -e
# expect 0.16.0: none
[ -d /models ] || mkdir /models
exec "$@"
