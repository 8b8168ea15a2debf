# Completion for fish, made from the table in src/config.

function __secure_socket_arguments
    set -l token (commandline -ct)
    if string match -q -- '*=*' $token
        __secure_socket_values $token
        return
    end
    set -l words (commandline -opc)
    set -l end =
    set -l dashes (string match -r -- '^--' $token)
    test (count $words) -eq 2; and test $words[2] = help; and set end ''
    test (count $words) -eq 1; and printf '%s\n' serve check explain help version
    printf '%s\t%s\n' "$dashes"config"$end" 'A file of option=value lines with # comments and optional quotes.'
    printf '%s\t%s\n' "$dashes"domain"$end" 'The address family.'
    printf '%s\t%s\n' "$dashes"protocol"$end" 'The socket type.'
    printf '%s\t%s\n' "$dashes"socket_path"$end" 'Path of the socket, absolute, or @name for Linux\'s abstract namespace, which has no owner and no mode.'
    printf '%s\t%s\n' "$dashes"socket_permissions"$end" 'Mode of the socket, exact whatever the umask.'
    printf '%s\t%s\n' "$dashes"socket_group"$end" 'The group that owns the socket and may cross its directory.'
    printf '%s\t%s\n' "$dashes"address"$end" 'Address to listen on, for the internet domains.'
    printf '%s\t%s\n' "$dashes"port"$end" 'Port to listen on, for the internet domains.'
    printf '%s\t%s\n' "$dashes"expose"$end" 'Whether address may be one that other machines can reach; TCP peers have no credentials, only an address.'
    printf '%s\t%s\n' "$dashes"backlog"$end" 'How many connections the kernel keeps waiting to be accepted, listen(2).'
    printf '%s\t%s\n' "$dashes"authorised_peer_username"$end" 'Admit these users.'
    printf '%s\t%s\n' "$dashes"authorised_peer_uid"$end" 'Admit these uids.'
    printf '%s\t%s\n' "$dashes"authorised_peer_groupname"$end" 'Admit members of these groups, primary or supplementary.'
    printf '%s\t%s\n' "$dashes"authorised_peer_gid"$end" 'Admit members of the groups with these gids.'
    printf '%s\t%s\n' "$dashes"authorised_peer_pid"$end" 'Admit these processes, held by pidfd, so that a recycled pid does not match.'
    printf '%s\t%s\n' "$dashes"authorised_peer_process_name"$end" 'Admit processes of these names (comm, 15 bytes).'
    printf '%s\t%s\n' "$dashes"authorised_peer_cli_args"$end" 'Admit processes with these whole command lines, arguments joined by spaces; a comma in one is written \\,.'
    printf '%s\t%s\n' "$dashes"authorised_peer_exe"$end" 'Admit processes that run these executables, compared by device and inode.'
    printf '%s\t%s\n' "$dashes"authorised_peer_exe_sha256"$end" 'Admit processes whose executable has one of these digests.'
    printf '%s\t%s\n' "$dashes"authorised_peer_label"$end" 'Admit peers with these labels of the Linux security module (SELinux, AppArmor, Smack).'
    printf '%s\t%s\n' "$dashes"allow"$end" 'A further rule that admits.'
    printf '%s\t%s\n' "$dashes"deny"$end" 'A rule that refuses.'
    printf '%s\t%s\n' "$dashes"process_proof"$end" 'Closes the gap between connect and check for rules, and permits of the broker, that name an executable: the server sends 16 random bytes and serves only after they came back from the same, still matching process; auto is yes for broker, and no for echo and relay, whose protocols have no room for it.'
    printf '%s\t%s\n' "$dashes"proof_timeout"$end" 'How long the peer may take to send the proof back.'
    printf '%s\t%s\n' "$dashes"session_ends_with_peer"$end" 'Close the connection when the authorised process exits, though a child may still hold it.'
    printf '%s\t%s\n' "$dashes"process_check_interval"$end" 'How often an open connection\'s process is looked at again for an execve of another program, where the matching rule names an executable.'
    printf '%s\t%s\n' "$dashes"process_check_parallel"$end" 'How many executables are looked at and hashed at once.'
    printf '%s\t%s\n' "$dashes"process_check_queue"$end" 'How many peers may wait for such a check.'
    printf '%s\t%s\n' "$dashes"process_check_overload"$end" 'With that queue full: wait holds further peers back, deny refuses them.'
    printf '%s\t%s\n' "$dashes"process_check_timeout"$end" 'A check that takes longer denies the peer.'
    printf '%s\t%s\n' "$dashes"process_hash_max_size"$end" 'Executables larger than this are not hashed, and match no digest.'
    printf '%s\t%s\n' "$dashes"process_hash_cache"$end" 'How many digests are remembered, by device, inode, size, mtime and ctime.'
    printf '%s\t%s\n' "$dashes"service"$end" 'echo returns the bytes; relay joins the peer to upstream; broker passes messages and requests between peers.'
    printf '%s\t%s\n' "$dashes"upstream"$end" 'Where the relay connects to: unix:/path, unix:@name, tcp:host:port, tcp:[::1]:port.'
    printf '%s\t%s\n' "$dashes"upstream_identity"$end" 'As whom the relay connects to its upstream: own, as itself; peer, with the peer\'s uid, gid and groups, so that the upstream\'s own peer authentication sees the real user.'
    printf '%s\t%s\n' "$dashes"proxy_protocol"$end" 'Whether the relay tells the upstream first who the peer is: v2, in a PROXY v2 header with its credentials; off, not at all.'
    printf '%s\t%s\n' "$dashes"relay_descriptors"$end" 'How many descriptors the relay forwards with one message, over unix upstreams (Wayland, D-Bus).'
    printf '%s\t%s\n' "$dashes"max_frame_size"$end" 'Broker: the largest subject and body together.'
    printf '%s\t%s\n' "$dashes"broker_pending"$end" 'Broker: bytes queued for one connection.'
    printf '%s\t%s\n' "$dashes"broker_pending_per_uid"$end" 'Broker: bytes queued for all connections of one uid.'
    printf '%s\t%s\n' "$dashes"broker_subscriptions"$end" 'Broker: subscriptions and registrations of one connection.'
    printf '%s\t%s\n' "$dashes"broker_requests"$end" 'Broker: requests of one connection that wait for their answer.'
    printf '%s\t%s\n' "$dashes"request_timeout"$end" 'Broker: a request that is not answered by then ends in an error.'
    printf '%s\t%s\n' "$dashes"permit"$end" 'Broker: who may do what with which subjects, as publish|subscribe|request|serve PATTERN RULE.'
    printf '%s\t%s\n' "$dashes"max_connections"$end" 'How many connections are open at once; it also bounds the worker pool, for which vm.max_map_count must have room.'
    printf '%s\t%s\n' "$dashes"threads"$end" 'multi: a bounded pool, one connection per worker; single: one thread accepts and serves all connections as they become ready; a number: so many such threads share them.'
    printf '%s\t%s\n' "$dashes"overload"$end" 'At max_connections: wait leaves newcomers in the kernel\'s backlog, refuse accepts and closes them, counted and logged.'
    printf '%s\t%s\n' "$dashes"first_byte_timeout"$end" 'Counted from admission, until the first byte in either direction, for the broker until the greeting is whole; from a peer that has to prove itself, proof_timeout instead.'
    printf '%s\t%s\n' "$dashes"idle_timeout"$end" 'Close a connection on which nothing moved for so long.'
    printf '%s\t%s\n' "$dashes"connect_timeout"$end" 'How long a connect to one upstream may take.'
    printf '%s\t%s\n' "$dashes"write_timeout"$end" 'Close a connection whose peer does not read for so long.'
    printf '%s\t%s\n' "$dashes"half_close_timeout"$end" 'How long the other direction may go on after one has ended.'
    printf '%s\t%s\n' "$dashes"max_lifetime"$end" 'Close a connection of this age, whatever it does.'
    printf '%s\t%s\n' "$dashes"stop_timeout"$end" 'How long a graceful stop waits for open connections.'
    printf '%s\t%s\n' "$dashes"max_connections_per_uid"$end" 'How many connections one user has open at once.'
    printf '%s\t%s\n' "$dashes"connection_rate_per_uid"$end" 'A token bucket for each uid: so many new connections in such a time.'
    printf '%s\t%s\n' "$dashes"limit"$end" 'Other limits for peers that meet the criteria of a rule, e.g. a busy service account: RULE:connections=N,rate=N/TIME, one of the two or both.'
    printf '%s\t%s\n' "$dashes"denials_before_penalty"$end" 'After so many offences within penalty, that uid (or process, where a rule tells the processes of that uid apart) is refused unread until it passes.'
    printf '%s\t%s\n' "$dashes"penalty"$end" 'How long a first penalty lasts; it doubles on repetition.'
    printf '%s\t%s\n' "$dashes"penalty_max"$end" 'Where that doubling ends.'
    printf '%s\t%s\n' "$dashes"penalty_for"$end" 'What counts as an offence: denials; floods of connections; slow senders and slow readers; protocol errors; those that connect and vanish.'
    printf '%s\t%s\n' "$dashes"penalty_rate"$end" 'How many connections of those under a penalty are turned away in such a time, 100/1s or more.'
    printf '%s\t%s\n' "$dashes"peers_remembered"$end" 'How many users and processes without open connections are remembered, for their rates, denials and penalties.'
    printf '%s\t%s\n' "$dashes"verbosity"$end" '0 fatal, 1 alert, 2 critical, 3 error, 4 warning, 5 notice, 6 info, 7 debug, 8 verbose, 9 trace, 10 wire; or off.'
    printf '%s\t%s\n' "$dashes"verbosity_for"$end" 'Another level for one module and those below it.'
    printf '%s\t%s\n' "$dashes"log_target"$end" 'Where lines go; each may have a level of its own.'
    printf '%s\t%s\n' "$dashes"log_file"$end" 'The log file, 0600, locked, opened without following links.'
    printf '%s\t%s\n' "$dashes"log_max_size"$end" 'At this size the file is renamed and compressed.'
    printf '%s\t%s\n' "$dashes"log_max_age"$end" 'At this age the file is rolled as well.'
    printf '%s\t%s\n' "$dashes"log_keep"$end" 'How many compressed files are kept.'
    printf '%s\t%s\n' "$dashes"log_keep_bytes"$end" 'How many bytes of compressed files are kept at most.'
    printf '%s\t%s\n' "$dashes"log_sync"$end" 'fdatasync(2) after each batch of lines.'
    printf '%s\t%s\n' "$dashes"mq_name"$end" 'POSIX message queue for lines; giving it adds mq to the default of log_target.'
    printf '%s\t%s\n' "$dashes"log_remote"$end" 'Where remote sends to, as RFC 5424.'
    printf '%s\t%s\n' "$dashes"log_format"$end" 'Form of the lines.'
    printf '%s\t%s\n' "$dashes"log_queue"$end" 'How many lines may wait for the writer.'
    printf '%s\t%s\n' "$dashes"log_overflow"$end" 'With that queue full: drop counts and reports what it dropped, block waits.'
    printf '%s\t%s\n' "$dashes"log_rate"$end" 'How many lines a second one place in the code may write about what peers cause; the rest are counted and summed up.'
    printf '%s\t%s\n' "$dashes"trail_file"$end" 'The tamper-evident trail: one JSON line for each decision, each with the SHA-256 of the line before.'
    printf '%s\t%s\n' "$dashes"trail_sync"$end" 'When the trail is synced to the disk: no, after each batch, or after each line, before the decision takes effect.'
    printf '%s\t%s\n' "$dashes"trail_max_size"$end" 'At this size the trail is rolled like a log; the chain goes on in the new file.'
    printf '%s\t%s\n' "$dashes"trail_keep"$end" 'How many rolled files of the trail are kept, in the order of rolling, whatever the clock says.'
    printf '%s\t%s\n' "$dashes"metrics_socket"$end" 'A second, equally protected socket that answers each connection with OpenMetrics text in an HTTP/1.0 response and closes; a request that prefers text/plain, as curl -H \'Accept: text/plain\' for promtool check metrics, gets Prometheus\' older text format.'
    printf '%s\t%s\n' "$dashes"metrics_allow"$end" 'Who may read the metrics.'
    printf '%s\t%s\n' "$dashes"metrics_deny"$end" 'Who may not, whatever metrics_allow says.'
    printf '%s\t%s\n' "$dashes"metrics_permissions"$end" 'Mode of the metrics socket.'
    printf '%s\t%s\n' "$dashes"metrics_group"$end" 'The group that owns the metrics socket.'
    printf '%s\t%s\n' "$dashes"run_as_user"$end" 'Become this user after bind.'
    printf '%s\t%s\n' "$dashes"run_as_group"$end" 'Become this group after bind.'
    printf '%s\t%s\n' "$dashes"sandbox"$end" 'enforce: refuse to start unless every wall stands; best_effort: start and say what is missing; off.'
    printf '%s\t%s\n' "$dashes"seccomp"$end" 'What a system call that is not on the list does: kill; trap names the call in the log, then dies; log; off.'
    printf '%s\t%s\n' "$dashes"peer"$end" 'Facts about a peer, for explain.'
end

function __secure_socket_values
    set -l head (string match -r -- '^[^=]*=' $argv[1])
    set -l value (string replace -- $head '' $argv[1])
    set -l list $head(string match -r -- '^.*,' $value)
    test -n "$list"; or set list $head
    switch (string trim -c=- -- $head)
        case config socket_path log_file trail_file metrics_socket
            printf '%s\n' $head(__fish_complete_path $value)
        case domain
            printf '%s\n' $head{AF_UNIX,AF_LOCAL,AF_INET,AF_INET6}
        case protocol
            printf '%s\n' $head{SOCK_STREAM,SOCK_SEQPACKET}
        case socket_group metrics_group run_as_group
            printf '%s\n' $head(__fish_complete_groups)
        case expose log_sync
            printf '%s\n' $head{yes,no}
        case authorised_peer_username
            printf '%s\n' $list(__fish_complete_users)
        case authorised_peer_groupname
            printf '%s\n' $list(__fish_complete_groups)
        case authorised_peer_exe
            printf '%s\n' $list(__fish_complete_path (string replace -r -- '^.*,' '' $value))
        case allow deny metrics_allow metrics_deny
            printf '%s\n' $list{uid:,user:,gid:,group:,pid:,exe:,sha256:,label:,name:,args:,address:,any}
        case process_proof session_ends_with_peer
            printf '%s\n' $head{auto,yes,no}
        case process_check_overload
            printf '%s\n' $head{wait,deny}
        case service
            printf '%s\n' $head{echo,relay,broker}
        case upstream_identity
            printf '%s\n' $head{own,peer}
        case proxy_protocol
            printf '%s\n' $head{off,v2}
        case overload
            printf '%s\n' $head{wait,refuse}
        case penalty_for
            printf '%s\n' $list{denial,flood,slow_sender,slow_reader,protocol,vanished}
        case log_format
            printf '%s\n' $head{text,json,rfc5424}
        case log_overflow
            printf '%s\n' $head{drop,block}
        case trail_sync
            printf '%s\n' $head{no,batch,each}
        case run_as_user
            printf '%s\n' $head(__fish_complete_users)
        case sandbox
            printf '%s\n' $head{enforce,best_effort,off}
        case seccomp
            printf '%s\n' $head{kill,trap,log,off}
    end
end

complete -c secure_socket -f -a '(__secure_socket_arguments)'
