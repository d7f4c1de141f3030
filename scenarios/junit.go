package scenarios

import (
	"encoding/xml"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The JUnit file, as those who read such files take it: a violation is a
// failure, what could not be decided and what the lab broke are errors.
type (
	junitSuites struct {
		XMLName xml.Name     `xml:"testsuites"`
		Suites  []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name       string          `xml:"name,attr"`
		Tests      int             `xml:"tests,attr"`
		Failures   int             `xml:"failures,attr"`
		Errors     int             `xml:"errors,attr"`
		Skipped    int             `xml:"skipped,attr"`
		Time       string          `xml:"time,attr"`
		Properties []junitProperty `xml:"properties>property"`
		Cases      []junitCase     `xml:"testcase"`
	}
	junitCase struct {
		Name       string          `xml:"name,attr"`
		Class      string          `xml:"classname,attr"`
		Time       string          `xml:"time,attr"`
		Properties []junitProperty `xml:"properties>property"`
		Failure    *junitReason    `xml:"failure"`
		Error      *junitReason    `xml:"error"`
		Skipped    *junitReason    `xml:"skipped"`
		Out        string          `xml:"system-out,omitempty"`
	}
	junitProperty struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	}
	junitReason struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr"`
		Text    string `xml:",chardata"`
	}
)

// JUnit gives the results as a JUnit file.
func (res *SuiteResult) JUnit(spec SuiteSpec) ([]byte, error) {
	suite := junitSuite{Name: "etcdrill scenarios " + spec.Pattern, Tests: len(res.Results), Time: junitSeconds(res.Seconds),
		Properties: []junitProperty{{"seed", strconv.FormatInt(res.Seed, 10)}, {"verdict", string(res.Verdict)}}}
	for _, r := range res.Results {
		c := junitCase{Name: r.Scenario.Name, Class: "etcdrill." + strings.Join(r.Scenario.Suites, "."), Time: junitSeconds(r.Seconds),
			Properties: []junitProperty{{"seed", strconv.FormatInt(r.Seed, 10)}, {"rerun", r.rerun(spec.Prefix)}, {"row", clean(r.Scenario.sentence())}}}
		if r.Dir != "" {
			c.Properties = append(c.Properties, junitProperty{"kept", r.Dir})
		}
		why := &junitReason{Type: string(r.Verdict), Text: clean(strings.Join(r.Reasons, "\n"))}
		if len(r.Reasons) > 0 {
			why.Message = clean(r.Reasons[0])
		}
		switch r.Verdict {
		case Pass:
		case Violation:
			c.Failure = why
			suite.Failures++
		case Skipped:
			c.Skipped = why
			suite.Skipped++
		default:
			c.Error = why
			suite.Errors++
		}
		for _, s := range r.Strikes {
			c.Out += clean(s.Detail) + "\n"
		}
		suite.Cases = append(suite.Cases, c)
	}
	b, err := xml.MarshalIndent(junitSuites{Suites: []junitSuite{suite}}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write JUnit file: %w", err)
	}
	return append([]byte(xml.Header), append(b, '\n')...), nil
}

func (res *SuiteResult) writeJUnit(spec SuiteSpec) error {
	b, err := res.JUnit(spec)
	if err == nil {
		err = writeFile(spec.JUnit, b)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", spec.JUnit, err)
	}
	return nil
}

func junitSeconds(s float64) string { return strconv.FormatFloat(s, 'f', 3, 64) }

// clean takes out what XML cannot hold.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || r < ' ' && r != '\n' && r != '\t' {
			return -1
		}
		return r
	}, s)
}
