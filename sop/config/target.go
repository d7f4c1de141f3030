package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// A Scraped is a member as monitoring knows it.
type Scraped struct {
	Name string // of the member
	Host string
}

// TargetLike gives the monitoring target of one member in the form that
// another's file has: every mention of the one's name and host is replaced,
// and every other byte is the same. What the file is like else is the business
// of who made it.
func TargetLike(content []byte, from, to Scraped) ([]byte, error) {
	if !TargetNames(content, from) {
		return nil, fmt.Errorf("make a monitoring target: its model does not name %s and %s", from.Name, from.Host)
	}
	switch {
	case to.Name == "" || strings.ContainsAny(to.Name, "\"'\n\r:{}[],#"):
		return nil, fmt.Errorf("make a monitoring target: %q is no member's name", to.Name)
	case to.Host == "" || strings.ContainsAny(to.Host, "\"'\n\r{},# "):
		return nil, fmt.Errorf("make a monitoring target: %q is no host", to.Host)
	}
	// Between the two steps a mark stands for the name: the new host may be part
	// of it, and the old one of the new.
	const mark = "\x00name\x00"
	if strings.Contains(string(content), mark) {
		return nil, errors.New("make a monitoring target: its model is no text")
	}
	text := replaceWord(string(content), from.Name, mark)
	text = replaceWord(text, from.Host, to.Host)
	return []byte(strings.ReplaceAll(text, mark, to.Name)), nil
}

// TargetNames reports whether a monitoring target is that of a member: it names
// both it and its host.
func TargetNames(content []byte, m Scraped) bool {
	text := string(content)
	return m.Name != "" && m.Host != "" && wordAt(text, m.Name, 0) >= 0 && wordAt(text, m.Host, 0) >= 0
}

// TargetHost finds the host that a monitoring target scrapes, "" when it has
// none or several.
func TargetHost(content []byte) string {
	found := ""
	for _, w := range strings.FieldsFunc(string(content), func(r rune) bool { return strings.ContainsRune(" \t\r\n\"',{}", r) }) {
		host, port, err := net.SplitHostPort(w)
		if err != nil { // it may stand in brackets, without a blank between
			if host, port, err = net.SplitHostPort(strings.TrimSuffix(strings.TrimPrefix(w, "["), "]")); err != nil {
				continue
			}
		}
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			continue
		}
		if ip, err := netip.ParseAddr(host); err == nil {
			host = ip.String()
		} else if !hostName.MatchString(host) {
			continue
		}
		if found != "" && found != host {
			return ""
		}
		found = host
	}
	return found
}

// wordAt finds a word from a place on: the same letters inside a longer word,
// number or address do not count.
func wordAt(text, word string, from int) int {
	part := func(i int) bool {
		if i < 0 || i >= len(text) {
			return false
		}
		c := text[i]
		return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c == '-'
	}
	joined := func(i, next int) bool { // a dot with more behind it, as in an address
		return i >= 0 && i < len(text) && text[i] == '.' && part(next)
	}
	for at := from; ; at++ {
		i := strings.Index(text[at:], word)
		if i < 0 {
			return -1
		}
		at += i
		end := at + len(word)
		if !part(at-1) && !part(end) && !joined(at-1, at-2) && !joined(end, end+1) {
			return at
		}
	}
}

func replaceWord(text, word, by string) string {
	var b strings.Builder
	at := 0
	for {
		i := wordAt(text, word, at)
		if i < 0 {
			b.WriteString(text[at:])
			return b.String()
		}
		b.WriteString(text[at:i] + by)
		at = i + len(word)
	}
}
