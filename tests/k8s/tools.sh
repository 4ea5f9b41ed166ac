#!/usr/bin/env bash
# Builds what the tests on Kubernetes run against, once a machine, and prints the folder it is in:
#   kubebox         etcd, API server, controller manager and kubectl in one (tests/k8s/kubebox)
#   helm            Helm 3
#   eg-VERSION/     Envoy Gateway, and its chart with the CRDs
# Everything comes from Go's module proxy. Cold, on two cores, that takes some twenty minutes and 5 GB of Go's own cache.
# With --built nothing is built: what is not there yet is missing.
# Exit status 3: a tool that is needed is missing (the reason is on stderr).
set -euo pipefail

HELM=v3.20.2
GATEWAYS=(v1.8.1 v1.9.1)
KUBERNETES=v1.36.3
# Older ones fetch this one by themselves (GOTOOLCHAIN), if they are not older than 1.21.
GO=1.26.8

here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/aigw/k8s
say() { printf '== %s\n' "$*" >&2; }
missing() { printf 'SKIPPED tests on Kubernetes: %s\n' "$*" >&2; exit 3; }

# Go, from the machine, from Debian, or as the module that Go itself fetches for a newer toolchain.
new_enough() { "$1" version 2>/dev/null | grep -qE 'go(1\.(2[1-9]|[3-9][0-9])|[2-9])'; }
find_go() {
  for candidate in go /usr/local/go/bin/go "$cache/go-$GO/bin/go"; do
    if new_enough "$candidate"; then go=$candidate; return; fi
  done
  say "Go is missing; fetching $GO"
  local arch; case $(uname -m) in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; *) missing "Go has to be installed" ;; esac
  # As Go itself takes a newer toolchain: from the module proxy that the environment names.
  [ -n "${GOPROXY-}" ] || missing "there is no Go of at least 1.21; install it, or name a module proxy in GOPROXY to have it fetched"
  local module=golang.org/toolchain/@v/v0.0.1-go$GO.linux-$arch.zip proxy=$GOPROXY
  local work; work=$(mktemp -d "$cache/go.XXXXXX")
  if curl -fsSL --retry 2 -o "$work/go.zip" "${proxy%%,*}/$module" \
    && python3 -m zipfile -e "$work/go.zip" "$work" \
    && mv "$work/golang.org/toolchain@v0.0.1-go$GO.linux-$arch" "$cache/go-$GO"; then
    chmod -R a+rX "$cache/go-$GO"; chmod +x "$cache/go-$GO"/bin/* "$cache/go-$GO"/pkg/tool/*/*
    rm -rf "$work"; go=$cache/go-$GO/bin/go
  else
    rm -rf "$work"; missing "there is no Go of at least 1.21, and it cannot be fetched here"
  fi
}

# run NAME COMMAND...: quietly, but with the end of what it said if it fails.
run() {
  local name=$1 log; shift; log=$(mktemp)
  local start=$SECONDS
  if "$@" >"$log" 2>&1; then say "$name is built ($((SECONDS - start)) s)"; rm -f "$log"
  else tail -n 30 "$log" >&2; rm -f "$log"; missing "$name cannot be built here"; fi
}
install() { GOBIN=$1 GOWORK=off CGO_ENABLED=0 "$go" install -trimpath -ldflags '-s -w' "$2"; }
build_kubebox() {
  (cd "$here/kubebox" && GOWORK=off CGO_ENABLED=0 "$go" build -mod=readonly -trimpath -o "$1" -ldflags \
    "-s -w -X k8s.io/component-base/version.gitVersion=$KUBERNETES -X k8s.io/component-base/version.gitMajor=1 \
     -X k8s.io/component-base/version.gitMinor=36" .)
}
build_gateway() {
  install "$1" "github.com/envoyproxy/gateway/cmd/envoy-gateway@$2"
  local module; module=$("$go" mod download -json "github.com/envoyproxy/gateway@$2" | sed -n 's/.*"Dir": "\(.*\)",/\1/p')
  cp -R "$module/charts/gateway-helm" "$1/chart"
  chmod -R u+w "$1/chart"
  sed -e "s#\${GatewayImagePullPolicy}#IfNotPresent#" -e "s#\${GatewayImage}#docker.io/envoyproxy/gateway:$2#" \
    "$1/chart/values.tmpl.yaml" >"$1/chart/values.yaml"
}

# Each is named after all that decides its content; a set is a folder of links to those that belong together.
digest=$(cat "$here/kubebox/main.go" "$here/kubebox/go.mod" "$here/kubebox/go.sum" | sha256sum | cut -c1-12)
kubebox=kubebox-$KUBERNETES-$digest helm=helm-$HELM
set=set-$(printf '%s\n' "$kubebox" "$helm" "${GATEWAYS[@]}" | sha256sum | cut -c1-12)
if [ "${1-}" = --built ]; then
  [ -d "$cache/$set" ] || { echo "the tools are not built yet" >&2; exit 3; }
  echo "$cache/$set"; exit
fi

if ! command -v ip >/dev/null; then
  say "iproute2 is missing; installing it"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends iproute2; } >/dev/null 2>&1 \
    || missing "there is no ip, and it cannot be installed here; on Debian: apt install iproute2"
fi
mkdir -p "$cache"
cd "$cache"
# One at a time: a second run waits and finds what the first has built.
exec 9>lock
flock -n 9 || { say "waiting for another build of the tools"; flock 9; }

go=
need() { [ -e "$1" ] && return 1; [ -n "$go" ] || find_go; rm -rf part; mkdir part; say "building $1; the first time takes some minutes"; }

if need "$kubebox"; then run "$kubebox" build_kubebox "$PWD/part/kubebox"; mv part/kubebox "$kubebox"; fi
if need "$helm"; then run "$helm" install "$PWD/part" "helm.sh/helm/v3/cmd/helm@$HELM"; mv part/helm "$helm"; fi
for version in "${GATEWAYS[@]}"; do
  if need "eg-$version"; then run "eg-$version" build_gateway "$PWD/part" "$version"; mv part "eg-$version"; fi
done
rm -rf part set.part; mkdir set.part
ln -s "../$kubebox" set.part/kubebox; ln -s "../$helm" set.part/helm
for version in "${GATEWAYS[@]}"; do ln -s "../eg-$version" "set.part/eg-$version"; done
[ -d "$set" ] || mv set.part "$set"
rm -rf set.part
echo "$cache/$set"
