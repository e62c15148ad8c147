// Command controlplane is the Kubernetes control plane of the tests in one program: the first word says which
// part of it to be (etcd, kube-apiserver, kube-controller-manager or kube-scheduler), the rest are its flags.
//
// The three Kubernetes programs are the real ones, with every flag of theirs. etcd is the real server too, with
// the few flags below: an apiserver on loopback needs no more.
package main

import (
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

// startPatience is how long etcd may take until it serves.
const startPatience = time.Minute

// parts are made only when asked for: each registers flags and feature gates of its own when it is made.
var parts = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllermanager.NewControllerManagerCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
}

func main() {
	if len(os.Args) < 2 {
		fail(errors.New("say which part to be: etcd, kube-apiserver, kube-controller-manager or kube-scheduler"))
	}
	name, flags := os.Args[1], os.Args[2:]
	if name == "etcd" {
		if err := serveEtcd(flags); err != nil {
			fail(err)
		}
		return
	}
	part, known := parts[name]
	if !known {
		fail(fmt.Errorf("there is no part %q", name))
	}
	command := part()
	command.SetArgs(flags)
	os.Exit(cli.Run(command))
}

// serveEtcd runs a one-member etcd until SIGINT or SIGTERM.
func serveEtcd(words []string) error {
	flags := flag.NewFlagSet("etcd", flag.ContinueOnError)
	folder := flags.String("data-dir", "", "where to keep the data")
	client := flags.String("listen-client-url", "", "where clients reach it, such as http://127.0.0.1:2379")
	peer := flags.String("listen-peer-url", "", "where other members would reach it")
	careless := flags.Bool("unsafe-no-fsync", false, "do not wait for the disk: what it holds dies with the machine")
	if err := flags.Parse(words); err != nil {
		return err
	}
	settings, err := etcdSettings(*folder, *client, *peer)
	if err != nil {
		return err
	}
	settings.UnsafeNoFsync = *careless
	server, err := embed.StartEtcd(settings)
	if err != nil {
		return err
	}
	defer server.Close()
	return waitFor(server)
}

// etcdSettings are those of a cluster of one.
func etcdSettings(folder, client, peer string) (*embed.Config, error) {
	if folder == "" {
		return nil, errors.New("etcd needs --data-dir")
	}
	clientURL, err := url.Parse(client)
	if err != nil {
		return nil, err
	}
	peerURL, err := url.Parse(peer)
	if err != nil {
		return nil, err
	}
	settings := embed.NewConfig()
	settings.Dir = folder
	settings.Name = "only"
	settings.ListenClientUrls = []url.URL{*clientURL}
	settings.AdvertiseClientUrls = []url.URL{*clientURL}
	settings.ListenPeerUrls = []url.URL{*peerURL}
	settings.AdvertisePeerUrls = []url.URL{*peerURL}
	settings.InitialCluster = settings.InitialClusterFromName(settings.Name)
	settings.LogLevel = "warn"
	return settings, nil
}

// waitFor returns when the server was asked to end, or with what went wrong.
func waitFor(server *embed.Etcd) error {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, os.Interrupt, syscall.SIGTERM)
	select {
	case <-server.Server.ReadyNotify():
	case <-asked:
		return nil
	case err := <-server.Err():
		return err
	case <-time.After(startPatience):
		return fmt.Errorf("etcd did not serve within %s", startPatience)
	}
	select {
	case <-asked:
		return nil
	case err := <-server.Err():
		return err
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "error:", err)
	os.Exit(1)
}
