// Package image makes the images of container labs, once.
//
//	ref, built, err := image.Maker{Docker: client, Cache: dir, Log: os.Stderr}.Ensure(ctx, image.Machine, "3.7.3")
//
// An image is made from the Dockerfile and the files below root, which are
// linked into this package, and from real etcd binaries. Its tag is a hash of
// all that goes into it, so that an image that is there is the right one, and a
// change of any of it makes another.
//
// # etcd
//
// For each version there is a module of its own in the directory etcd: a .mod
// that names etcd's three programs as tools, and the .sum beside it. They are
// laid out in a temporary directory, built without cgo by the go command, and
// kept in Cache under a hash of what they were made from. They are modules of
// their own because no program can be linked with three versions of etcd, and
// bear another name than go.mod because files of another module cannot be
// embedded. To add a version, in an empty directory with a go.mod:
//
//	go get -tool go.etcd.io/etcd/server/v3@vX go.etcd.io/etcd/etcdctl/v3@vX go.etcd.io/etcd/etcdutl/v3@vX
//	go mod tidy
//
// # Debian
//
// The Dockerfile begins with debian:trixie. Where the engine has it, or can
// pull it, that is all. Else, as root on a Debian machine, it is made by
// debootstrap from the mirror that this machine's own apt uses, and imported
// under that name. Builds use the network of the engine's host, since there are
// machines whose mirror answers to nobody else.
package image
