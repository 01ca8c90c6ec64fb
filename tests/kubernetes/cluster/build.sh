#!/usr/bin/env bash
# build.sh FOLDER: a Kubernetes control plane in FOLDER/bin, from Debian 12's packages alone.
#
# Nothing is installed: packages are unpacked under FOLDER, and apt keeps its lists there too, so no root is
# needed. What is there already is not made again; an interrupted run is gone on with. JOBS (all cores) and
# the priority (nice 19) keep it out of the way of others.
set -euo pipefail

SUITE=bookworm
NEEDED='a control plane is built from the packages of Debian 12; anywhere else set HEARTH_TEST_KUBECONFIG to a cluster'
PACKAGES=(golang-1.19-go golang-1.19-src etcd-server golang-github-modern-go-reflect2-dev)
# An archive that says nothing is asked again, and then given up.
PATIENCE=(-o Acquire::http::Timeout=60 -o Acquire::https::Timeout=60 -o Acquire::Retries=3)
LOCK_SECONDS=1800
BINARIES=(kube-apiserver kube-controller-manager kube-scheduler)

main() {
    mkdir -p "$1"
    folder=$(cd "$1" && pwd)
    apt=$folder/apt
    go_root=$folder/packages/usr/lib/go-1.19
    tree=$folder/gopath/src/k8s.io/kubernetes
    exec 9>"$folder/lock"
    flock --timeout "$LOCK_SECONDS" 9 || fail "another build has held $folder/lock for $LOCK_SECONDS s"
    step fetched fetch
    step unpacked unpack
    step generated generate
    step built build
    rm -rf "$folder"/{apt,gopath,packages,go-cache}
}

step() { # step NAME FUNCTION: once, its output kept for when it fails
    [ -e "$folder/bin/.complete" ] || [ -e "$folder/.$1" ] && return
    local began=$SECONDS log=$folder/$1.log
    ("$2") >"$log" 2>&1 & # in the background, because a condition would switch `set -e` off
    if ! wait $!; then
        tail -n 20 "$log" >&2
        fail "the control plane was not $1; the whole log is $log"
    fi
    touch "$folder/.$1"
    echo "hearth: control plane $1 in $((SECONDS - began)) s"
}

fail() {
    echo "hearth: $*" >&2
    exit 1
}

fetch() {
    mkdir -p "$apt"/{lists/partial,cache/archives/partial,debs}
    sources >"$apt/sources.list"
    debian apt-get update
    cd "$apt/debs"
    debian apt-get download "${PACKAGES[@]}"
    debian apt-get source --download-only kubernetes
}

sources() { # the archive that this machine uses, source packages included
    local archive signed='[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]'
    archive=$(archive_of_suite "$apt")
    printf '%s %s %s %s main\n' deb "$signed" "$archive" $SUITE deb-src "$signed" "$archive" $SUITE
}

archive_of_suite() { # where apt has no lists yet, as in a fresh container, it says nothing before it has some
    lists=(-o Dir::State::Lists="$1/known" -o Dir::Cache="$1/known" -o APT::Sandbox::User=root "${PATIENCE[@]}")
    known_archive || {
        mkdir -p "$1"/known/{partial,archives/partial}
        apt-get update -qq "${lists[@]}" >&2
        known_archive "${lists[@]}"
    }
}

known_archive() {
    apt-get indextargets "$@" --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
        awk -v suite=$SUITE '$1 == suite && $2 == "main" && !found { print $3; found = 1 } END { exit !found }'
}

debian() { # debian COMMAND...: with lists and caches of our own
    "$@" -qq -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State::Lists="$apt/lists" -o Dir::Cache="$apt/cache" -o APT::Sandbox::User=root "${PATIENCE[@]}"
}

unpack() {
    rm -rf "$folder/packages" "$folder/gopath"
    for package in "$apt"/debs/*.deb; do dpkg-deb -x "$package" "$folder/packages"; done
    mkdir -p "$folder/gopath/src/k8s.io"
    dpkg-source --no-check -x "$apt"/debs/kubernetes_*.dsc "$tree"
    # The vendored one panics at every write under Go 1.18 and newer.
    local reflect2=$tree/vendor/github.com/modern-go/reflect2
    rm -rf "$reflect2"
    cp -r "$folder/packages/usr/share/gocode/src/github.com/modern-go/reflect2" "$reflect2"
}

go() {
    env GO111MODULE=off CGO_ENABLED=0 GOROOT="$go_root" GOPATH="$folder/gopath" GOCACHE="$folder/go-cache" \
        GOFLAGS="-p=${JOBS:-$(nproc)}" nice -n 19 "$go_root/bin/go" "$@"
}

generate() { # the one generated file that the source package lacks
    cd "$tree"
    go build -o "$folder/openapi-gen" k8s.io/kubernetes/vendor/k8s.io/kube-openapi/cmd/openapi-gen
    local packages
    packages=$(grep -rl --include='*.go' '+k8s:openapi-gen=true' pkg staging/src vendor/k8s.io 2>/dev/null |
        xargs -n1 dirname | sed 's,^staging/src/,k8s.io/kubernetes/vendor/,; s,^vendor/,k8s.io/kubernetes/vendor/,; s,^pkg/,k8s.io/kubernetes/pkg/,' |
        sort -u | paste -sd,)
    env GO111MODULE=off GOROOT="$go_root" GOPATH="$folder/gopath" PATH="$go_root/bin:$PATH" nice -n 19 \
        "$folder/openapi-gen" -O zz_generated.openapi -p k8s.io/kubernetes/pkg/generated/openapi \
        --go-header-file hack/boilerplate/boilerplate.generatego.txt --output-base "$folder/gopath/src" \
        --report-filename /dev/null -i "$packages"
    rm "$folder/openapi-gen"
}

build() {
    cd "$tree"
    mkdir -p "$folder/bin"
    local stamp=k8s.io/kubernetes/vendor/k8s.io/component-base/version
    go build -trimpath -o "$folder/bin/" \
        -ldflags "-s -w -X $stamp.gitVersion=v1.20.2 -X $stamp.gitMajor=1 -X $stamp.gitMinor=20" \
        "${BINARIES[@]/#/k8s.io/kubernetes/cmd/}"
    cp "$folder/packages/usr/bin/etcd" "$folder/bin/"
    touch "$folder/bin/.complete"
}

[ $# = 1 ] || fail 'give the folder to build in'
[ ! -e "$1/bin/.complete" ] || exit 0
for command in apt-get dpkg-deb dpkg-source flock; do
    command -v "$command" >/dev/null || fail "$command is missing; $NEEDED"
done
archive_of_suite "$1/apt" >/dev/null || fail "apt knows no $SUITE here; $NEEDED"
main "$1"
