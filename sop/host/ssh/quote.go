package ssh

import (
	"errors"
	"fmt"
	"strings"
)

// plain are the characters that no shell gives a meaning to, wherever in a word.
const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:,@"

// Quote writes a word so that a POSIX shell takes it as that word, whatever is
// in it. A shell cannot have a NUL in a word, and neither can Quote.
func Quote(word string) string {
	if word != "" && strings.Trim(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// quoteAll quotes words and puts spaces between them.
func quoteAll(words ...string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = Quote(w)
	}
	return strings.Join(quoted, " ")
}

// Words splits a line into words as a shell would, and as Ansible does with its
// ssh arguments: spaces part them, quotes and backslashes keep them together.
// What a shell would do more (variables, patterns, several commands) means
// nothing here: those characters stand for themselves. $'...' is understood,
// since systemctl writes it.
func Words(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	begun := false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == ' ' || c == '\t' || c == '\n':
			if begun {
				words = append(words, word.String())
				word.Reset()
				begun = false
			}
			continue
		case c == '\'':
			end := strings.IndexByte(line[i+1:], '\'')
			if end < 0 {
				return nil, errors.New("a quote ' is not closed")
			}
			word.WriteString(line[i+1 : i+1+end])
			i += 1 + end
		case c == '"':
			closed := false
			for i++; i < len(line); i++ {
				if line[i] == '"' {
					closed = true
					break
				}
				if line[i] == '\\' && i+1 < len(line) && strings.IndexByte("\"\\$`\n", line[i+1]) >= 0 {
					i++
					if line[i] == '\n' {
						continue
					}
				}
				word.WriteByte(line[i])
			}
			if !closed {
				return nil, errors.New(`a quote " is not closed`)
			}
		case c == '$' && i+1 < len(line) && line[i+1] == '\'':
			n, err := ansiQuoted(line[i+2:], &word)
			if err != nil {
				return nil, err
			}
			i += 1 + n
		case c == '\\':
			if i+1 == len(line) {
				return nil, errors.New("a backslash stands at the end")
			}
			i++
			if line[i] == '\n' {
				continue
			}
			word.WriteByte(line[i])
		default:
			word.WriteByte(c)
		}
		begun = true
	}
	if begun {
		words = append(words, word.String())
	}
	return words, nil
}

// ansiQuoted reads the rest of $'...' and gives how much of it that was.
func ansiQuoted(rest string, word *strings.Builder) (int, error) {
	escapes := map[byte]byte{'n': '\n', 't': '\t', 'r': '\r', 'a': '\a', 'b': '\b', 'f': '\f', 'v': '\v', '\\': '\\', '\'': '\'', '"': '"'}
	for i := 0; i < len(rest); i++ {
		switch c := rest[i]; {
		case c == '\'':
			return i + 1, nil
		case c == '\\' && i+1 < len(rest):
			i++
			if e, ok := escapes[rest[i]]; ok {
				word.WriteByte(e)
				continue
			}
			var value, digits int
			switch {
			case rest[i] == 'x':
				for digits < 2 && i+1+digits < len(rest) && strings.IndexByte("0123456789abcdefABCDEF", rest[i+1+digits]) >= 0 {
					digits++
				}
				if _, err := fmt.Sscanf(rest[i+1:i+1+digits], "%x", &value); err != nil {
					return 0, fmt.Errorf(`escape \%c in a quote $' is not known`, rest[i])
				}
				i += digits
			case rest[i] >= '0' && rest[i] <= '7':
				for digits < 3 && i+digits < len(rest) && rest[i+digits] >= '0' && rest[i+digits] <= '7' {
					value = value*8 + int(rest[i+digits]-'0')
					digits++
				}
				i += digits - 1
			default:
				return 0, fmt.Errorf(`escape \%c in a quote $' is not known`, rest[i])
			}
			word.WriteByte(byte(value))
		default:
			word.WriteByte(c)
		}
	}
	return 0, errors.New("a quote $' is not closed")
}
