package main

import (
	"fmt"
	"os"

	"github.com/spf13/pflag"
	kwokcrd "sigs.k8s.io/kwok/kustomize/crd"
	nodefast "sigs.k8s.io/kwok/kustomize/stage/node/fast"
	nodeheartbeat "sigs.k8s.io/kwok/kustomize/stage/node/heartbeat-with-lease"
	podfast "sigs.k8s.io/kwok/kustomize/stage/pod/fast"
	kwokconfig "sigs.k8s.io/kwok/pkg/config"
	kwok "sigs.k8s.io/kwok/pkg/kwok/cmd"
	kwoklog "sigs.k8s.io/kwok/pkg/log"
	kwoksignals "sigs.k8s.io/kwok/pkg/utils/signals"
)

func runKwok() {
	flags := pflag.NewFlagSet("global", pflag.ContinueOnError)
	flags.ParseErrorsAllowlist.UnknownFlags = true
	flags.Usage = func() {}
	ctx, _ := kwoklog.InitFlags(kwoksignals.SetupSignalContext(), flags)
	ctx, err := kwokconfig.InitFlags(ctx, flags)
	if err == nil {
		command := kwok.NewCommand(ctx)
		command.PersistentFlags().AddFlagSet(flags)
		err = command.ExecuteContext(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "kwok:", err)
		os.Exit(1)
	}
}

// printKwokManifests prints what kwok needs in the cluster: the definition of Stage ("crd"), or the stages that make
// its nodes ready and its pods run at once ("stages").
func printKwokManifests() {
	documents := map[string][]string{
		"crd": {string(kwokcrd.Stage)},
		"stages": {
			nodefast.DefaultNodeInit, nodeheartbeat.DefaultNodeHeartbeatWithLease,
			podfast.DefaultPodReady, podfast.DefaultPodComplete, podfast.DefaultPodDelete,
		},
	}
	if len(os.Args) != 2 || documents[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: kwok-manifests crd|stages")
		os.Exit(2)
	}
	for _, document := range documents[os.Args[1]] {
		fmt.Println("---\n" + document)
	}
}
