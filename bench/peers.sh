#!/usr/bin/env bash
# Installs the other gateways under bench/.peers where they are missing, and measures them. One that cannot be installed is
# left out. Takes the path of the rig.
set -eu -o pipefail
rig=$1
here=$(cd "$(dirname "$0")" && pwd)
peers=$here/.peers
mkdir -p "$peers"
arguments=()

if [ ! -x "$peers/litellm/bin/litellm" ]; then
  echo "== installing LiteLLM into $peers/litellm (some hundred MB)"
  python3 -m venv "$peers/litellm" &&
    timeout 600 "$peers/litellm/bin/pip" install --disable-pip-version-check 'litellm[proxy]' ||
    echo "LiteLLM cannot be installed here and is left out"
fi
[ -x "$peers/litellm/bin/litellm" ] && arguments+=(--litellm "$peers/litellm/bin/litellm")

portkey=$peers/portkey/node_modules/@portkey-ai/gateway/build/start-server.js
if [ ! -f "$portkey" ]; then
  echo "== installing Portkey into $peers/portkey"
  mkdir -p "$peers/portkey" &&
    timeout 600 npm install --prefix "$peers/portkey" --no-audit --no-fund --omit=dev @portkey-ai/gateway ||
    echo "Portkey cannot be installed here and is left out"
fi
[ -f "$portkey" ] && arguments+=(--portkey "$portkey")

exec "$rig" peers "${arguments[@]}"
