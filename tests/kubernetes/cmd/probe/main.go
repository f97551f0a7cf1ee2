// probe is what tests/kubernetes/check runs in pods.
//
//	probe serve PORT         answers every HTTP request with the pod's name
//	probe get URL            prints the body of a 200, else fails
//	probe greet HOST:PORT    prints the first line that the server sends (NATS begins with INFO)
//	probe connect HOST:PORT  succeeds when the connection does
package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

// Shorter than the second after which TCP tries again: a lost packet should show.
const patience = 900 * time.Millisecond

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("usage: probe serve|get|greet|connect ADDRESS")
	}
	switch args[0] {
	case "serve":
		return http.ListenAndServe(":"+args[1], http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintln(w, os.Getenv("HOSTNAME"))
		}))
	case "get":
		client := http.Client{Timeout: patience}
		response, err := client.Get(args[1])
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", args[1], response.Status)
		}
		_, err = io.Copy(os.Stdout, response.Body)
		return err
	case "greet", "connect":
		connection, err := net.DialTimeout("tcp", args[1], patience)
		if err != nil {
			return err
		}
		defer connection.Close()
		if args[0] == "connect" {
			return nil
		}
		if err := connection.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		line, err := bufio.NewReader(connection).ReadString('\n')
		fmt.Print(line)
		return err
	}
	return fmt.Errorf("%q is not serve, get, greet or connect", args[0])
}
