# Completion for fish, made from the table in src/config.

function __secure_socketctl_arguments
    set -l token (commandline -ct)
    if string match -q -- '*=*' $token
        __secure_socketctl_values $token
        return
    end
    set -l words (commandline -opc)
    set -l end =
    set -l dashes (string match -r -- '^--' $token)
    test (count $words) -eq 2; and test $words[2] = help; and set end ''
    test (count $words) -eq 1; and printf '%s\n' connect publish subscribe request respond mqcat verify-trail help version
    printf '%s\t%s\n' "$dashes"socket_path"$end" 'The socket to connect to.'
    printf '%s\t%s\n' "$dashes"protocol"$end" 'Its type.'
    printf '%s\t%s\n' "$dashes"server"$end" 'Whom the server must be.'
    printf '%s\t%s\n' "$dashes"process_proof"$end" 'Send back the 16 bytes by which a server with process_proof=yes makes sure that this is still the process that connected.'
    printf '%s\t%s\n' "$dashes"connect_timeout"$end" 'How long connecting may take.'
    printf '%s\t%s\n' "$dashes"framing"$end" 'How messages are told apart on stdin and stdout: lines, or length: 4 bytes big-endian, then the message.'
    printf '%s\t%s\n' "$dashes"json"$end" 'One JSON object for each message, with its subject and the sender\'s stamp.'
    printf '%s\t%s\n' "$dashes"count"$end" 'End after so many messages.'
    printf '%s\t%s\n' "$dashes"drop_oldest"$end" 'As a slow subscriber, lose the oldest messages instead of the connection.'
    printf '%s\t%s\n' "$dashes"confirm"$end" 'Ask the broker to confirm each message that is published, and fail if it does not.'
    printf '%s\t%s\n' "$dashes"request_timeout"$end" 'How long to wait for the answer to a request.'
    printf '%s\t%s\n' "$dashes"max_frame_size"$end" 'The largest message that is sent or accepted.'
    printf '%s\t%s\n' "$dashes"respond_parallel"$end" 'How many commands run at once.'
    printf '%s\t%s\n' "$dashes"respond_timeout"$end" 'A command that runs longer is killed with its process group, and its request ends without an answer.'
    printf '%s\t%s\n' "$dashes"mq_name"$end" 'The POSIX message queue that mqcat follows.'
    printf '%s\t%s\n' "$dashes"head"$end" 'A line of the trail that must be there, by number and digest, as the log named it.'
end

function __secure_socketctl_values
    set -l head (string match -r -- '^[^=]*=' $argv[1])
    set -l value (string replace -- $head '' $argv[1])
    set -l list $head(string match -r -- '^.*,' $value)
    test -n "$list"; or set list $head
    switch (string trim -c=- -- $head)
        case socket_path
            printf '%s\n' $head(__fish_complete_path $value)
        case protocol
            printf '%s\n' $head{SOCK_STREAM,SOCK_SEQPACKET}
        case server
            printf '%s\n' $list{uid:,user:,gid:,group:,pid:,exe:,sha256:,label:,name:,args:,address:,any}
        case process_proof json drop_oldest confirm
            printf '%s\n' $head{yes,no}
        case framing
            printf '%s\n' $head{lines,length}
    end
end

complete -c secure_socketctl -f -a '(__secure_socketctl_arguments)'
