package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The variables of etcd are its options in capitals; certificates stand under
// names of their own.
func variable(key string) string {
	return "ETCD_" + strings.ToUpper(strings.ReplaceAll(key, "-", "_"))
}

const peerPrefix = "ETCD_PEER_"

// ParseConf reads a member's configuration in either form.
func ParseConf(form Form, content []byte) (Member, error) {
	if form != Env {
		return ParseMember(content)
	}
	m, err := parseEnv(content)
	if err != nil {
		return Member{}, fmt.Errorf("read etcd's environment: %w", err)
	}
	return m, nil
}

// parseEnv reads a file of variables. What it does not set is as the unit or
// etcd itself has it.
func parseEnv(content []byte) (Member, error) {
	var m Member
	var peer TLSFiles
	var listenPeer, listenClient []string
	text := map[string]*string{
		variable(keyName): &m.Name, variable(keyDataDir): &m.DataDir, variable(keyWALDir): &m.WALDir,
		variable(keyToken): &m.Token, variable(keyState): &m.State,
		variable(keyPeerURL): &m.PeerURL, variable(keyClientURL): &m.ClientURL,
		variable(keyCompactionMode): &m.CompactionMode, variable(keyRetention): &m.CompactionRetention,
		variable(keyCA): &m.CAFile, variable(keyCert): &m.CertFile, variable(keyKey): &m.KeyFile,
		peerPrefix + "TRUSTED_CA_FILE": &peer.CAFile, peerPrefix + "CERT_FILE": &peer.CertFile, peerPrefix + "KEY_FILE": &peer.KeyFile,
	}
	for _, a := range assignments(content) {
		if !strings.HasPrefix(a.name, "ETCD_") {
			continue
		}
		if a.computed {
			return Member{}, fmt.Errorf("line %d: %s is computed, or quoted in a way that is not understood", a.line, a.name)
		}
		var err error
		switch a.name {
		case variable(keyInitial):
			m.Initial, err = parseInitial(a.value)
		case variable(keyListenPeer):
			listenPeer = splitList(a.value)
		case variable(keyListenClient):
			listenClient = splitList(a.value)
		case variable(keyElection):
			m.ElectionMs, err = strconv.Atoi(a.value)
		case variable(keyHeartbeat):
			m.HeartbeatMs, err = strconv.Atoi(a.value)
		case variable(keyQuota):
			m.QuotaBytes, err = strconv.ParseInt(a.value, 10, 64)
		default:
			if at, ok := text[a.name]; ok {
				*at = a.value
				break
			}
			m.Other = append(m.Other, Setting{Key: a.name, Value: a.value})
		}
		if err != nil {
			return Member{}, fmt.Errorf("line %d: %s: %w", a.line, a.name, err)
		}
	}
	if !slices.Equal(listenPeer, derivedListenPeer(m.PeerURL)) {
		m.ListenPeer = listenPeer
	}
	if !slices.Equal(listenClient, derivedListenClient(m.ClientURL)) {
		m.ListenClient = listenClient
	}
	if peer != (TLSFiles{m.CAFile, m.CertFile, m.KeyFile}) {
		m.PeerTLS = &peer
	}
	return m, nil
}

// RenderConf gives a member's configuration in either form.
func (m Member) RenderConf(form Form) []byte {
	if form != Env {
		return m.Render()
	}
	var b bytes.Buffer
	b.WriteString(`# One member of an etcd cluster. Written by etcdrill; read by the unit.
# https://etcd.io/docs/latest/op-guide/configuration/
#
# The variables that begin with ETCD_INITIAL_ are read once, while the data
# directory is empty. Afterwards the cluster knows its members better than this.

`)
	set := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s=\"%s\"\n", name, envValue(value))
		}
	}
	number := func(key string, n int64) {
		if n != 0 {
			set(variable(key), strconv.FormatInt(n, 10))
		}
	}
	set(variable(keyName), m.Name)
	set(variable(keyDataDir), m.DataDir)
	set(variable(keyWALDir), m.WALDir)
	set(variable(keyToken), m.Token)
	set(variable(keyState), m.State)
	set(variable(keyInitial), formatInitial(m.Initial))
	set(variable(keyPeerURL), m.PeerURL)
	set(variable(keyListenPeer), strings.Join(orElse(m.ListenPeer, derivedListenPeer(m.PeerURL)), ","))
	set(variable(keyListenClient), strings.Join(orElse(m.ListenClient, derivedListenClient(m.ClientURL)), ","))
	set(variable(keyClientURL), m.ClientURL)
	number(keyElection, int64(m.ElectionMs))
	number(keyHeartbeat, int64(m.HeartbeatMs))
	number(keyQuota, m.QuotaBytes)
	set(variable(keyCompactionMode), m.CompactionMode)
	set(variable(keyRetention), m.CompactionRetention)
	peer := TLSFiles{m.CAFile, m.CertFile, m.KeyFile}
	if m.PeerTLS != nil {
		peer = *m.PeerTLS
	}
	for _, side := range []struct {
		prefix string
		files  TLSFiles
	}{{"ETCD_", TLSFiles{m.CAFile, m.CertFile, m.KeyFile}}, {peerPrefix, peer}} {
		set(side.prefix+"CERT_FILE", side.files.CertFile)
		set(side.prefix+"KEY_FILE", side.files.KeyFile)
		set(side.prefix+"TRUSTED_CA_FILE", side.files.CAFile)
	}
	for _, s := range m.Other {
		set(s.Key, s.Value)
	}
	return b.Bytes()
}

// envValue writes a value between double quotes as systemd reads it.
func envValue(v string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "`", "\\`", "$", `\$`).Replace(v)
}

// EditConf edits a member's configuration in either form; see EditMember. Of
// variables only the members and the state are edited.
func EditConf(form Form, content []byte, e MemberEdit) ([]byte, error) {
	if form != Env {
		return EditMember(content, e)
	}
	edited, err := e.applyEnv(content)
	if err != nil {
		return nil, fmt.Errorf("edit etcd's environment: %w", err)
	}
	return edited, nil
}

func (e MemberEdit) applyEnv(content []byte) ([]byte, error) {
	present, err := parseEnv(content)
	if err != nil {
		return nil, err
	}
	if err := e.check(); err != nil {
		return nil, err
	}
	if (e != MemberEdit{State: e.State, Initial: e.Initial}) {
		return nil, errors.New("only the members and the state of a file of variables are edited")
	}
	if e.State != nil && *e.State != present.State {
		if content, err = setVariable(content, variable(keyState), *e.State); err != nil {
			return nil, err
		}
	}
	if e.Initial != nil && !samePeers(present.Initial, *e.Initial) {
		if content, err = setVariable(content, variable(keyInitial), formatInitial(*e.Initial)); err != nil {
			return nil, err
		}
	}
	again, err := parseEnv(content)
	switch {
	case err != nil:
		return nil, err
	case e.State != nil && again.State != *e.State, e.Initial != nil && !samePeers(again.Initial, *e.Initial):
		return nil, errors.New("the new values would not be read back; it is for a person to edit")
	}
	return content, nil
}

// setVariable replaces the value of a variable, quotes kept, or adds a line.
func setVariable(content []byte, name, value string) ([]byte, error) {
	var at assignment
	for _, a := range assignments(content) {
		if a.name != name {
			continue
		}
		if at.name != "" {
			return nil, fmt.Errorf("line %d: %s is set a second time, first in line %d; which one counts is for a person to see", a.line, name, at.line)
		}
		at = a
	}
	if at.name == "" {
		if len(content) > 0 && !bytes.HasSuffix(content, []byte("\n")) {
			content = append(slices.Clip(content), '\n')
		}
		return append(slices.Clip(content), fmt.Sprintf("%s=\"%s\"\n", name, envValue(value))...), nil
	}
	if at.quote == '"' {
		value = envValue(value)
	}
	return splice(content, at.start, at.end, cmp.Or(value, `""`)), nil
}
