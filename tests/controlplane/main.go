// Command controlplane is the Kubernetes control plane of the tests in one program: the first word says which
// part of it to be (etcd, kube-apiserver, kube-controller-manager or kube-scheduler), the rest are its flags.
// Each part is the real one, with every flag of its own.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

// parts are made only when asked for: each registers flags and feature gates of its own when it is made.
var parts = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllermanager.NewControllerManagerCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
}

func main() {
	if len(os.Args) < 2 {
		fail("say which part to be: etcd, kube-apiserver, kube-controller-manager or kube-scheduler")
	}
	name, flags := os.Args[1], os.Args[2:]
	if name == "etcd" {
		etcdmain.Main(append([]string{name}, flags...))
		return
	}
	part, known := parts[name]
	if !known {
		fail(fmt.Sprintf("there is no part %q", name))
	}
	command := part()
	command.SetArgs(flags)
	os.Exit(cli.Run(command))
}

func fail(problem string) {
	fmt.Fprintln(os.Stderr, "error:", problem)
	os.Exit(1)
}
